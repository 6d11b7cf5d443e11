#!/usr/bin/env python3
"""Makes one HTML document of the files in this folder, and a C++ source of it.

usage: embed.py INDEX STYLE SCRIPT... OUTPUT

INDEX has an empty <style></style> and an empty <script></script>, which the others are put into. The policy names them by
their hashes: nothing else is run or shown, whatever gets into the document.
"""

import base64
import hashlib
import sys

CHUNK_BYTES = 8192  # compilers promise no longer literals
DELIMITER = "page"


def read(name):
    with open(name, encoding="ascii") as file:
        return file.read()


def put(document, tag, content):
    empty = f"<{tag}></{tag}>"
    if document.count(empty) != 1:
        sys.exit(f"embed.py: the document has {document.count(empty)} times {empty}")
    if f"</{tag}" in content:
        sys.exit(f"embed.py: the {tag} ends itself")
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return document.replace(empty, f"<{tag}>{content}</{tag}>"), f"'sha256-{digest}'"


def literal(text):
    if f"){DELIMITER}\"" in text:
        sys.exit("embed.py: the document ends its literal")
    chunks = [text[at:at + CHUNK_BYTES] for at in range(0, len(text), CHUNK_BYTES)]
    return "\n".join(f"    R\"{DELIMITER}({chunk}){DELIMITER}\"" for chunk in chunks)


def main():
    index, style, *scripts, output = sys.argv[1:]
    document, style_hash = put(read(index), "style", read(style))
    document, script_hash = put(document, "script", "".join(read(name) for name in scripts))
    policy = "; ".join(["default-src 'none'", f"script-src {script_hash}", f"style-src {style_hash}", "connect-src 'self'",
                        "img-src data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"])
    with open(output, "w", encoding="ascii") as file:
        file.write("// Made by src/node/page/embed.py.\n#include \"node/page.h\"\n\nnamespace blobcache::node {\n\n"
                   f"const std::string_view page_html =\n{literal(document)};\n\n"
                   f"const std::string_view page_security_policy = \"{policy}\";\n\n"
                   "}  // namespace blobcache::node\n")


main()
