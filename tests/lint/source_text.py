"""Reads C++ sources for the lint tests: which files there are, and their text without comments, strings and directives.

Standard library only. Offsets and line numbers stay those of the original: what is removed becomes spaces.
"""

import pathlib
import re

RAW_STRING = re.compile(r'(?:u8|[uUL])?R"([^()\\\s]{0,16})\(')


def source_files(root, folders, suffixes):
    """Files below root/folder for each folder, sorted, as paths relative to root."""
    root = pathlib.Path(root)
    found = []
    for folder in folders:
        for path in sorted((root / folder).rglob('*')):
            if path.is_file() and path.suffix in suffixes and '__pycache__' not in path.parts:
                found.append(path.relative_to(root).as_posix())
    return found


def blank(text):
    """The same length and the same line breaks, nothing else."""
    return re.sub(r'[^\n]', ' ', text)


def end_of_literal(text, start, quote):
    """Offset after the closing quote of a string or character literal whose opening quote is at start."""
    at = start + 1
    while at < len(text) and text[at] != quote:
        if text[at] == '\n':
            return at  # unterminated: it was not a literal
        at += 2 if text[at] == '\\' else 1
    return min(at + 1, len(text))


def strip_literals(text):
    """C++ text with comments and the contents of string and character literals blanked; the quotes stay."""
    out = []
    at = 0
    while at < len(text):
        raw = RAW_STRING.match(text, at)
        if text.startswith('//', at):
            end = text.find('\n', at)
            end = len(text) if end < 0 else end
            out.append(blank(text[at:end]))
        elif text.startswith('/*', at):
            end = text.find('*/', at + 2)
            end = len(text) if end < 0 else end + 2
            out.append(blank(text[at:end]))
        elif raw and not (at > 0 and (text[at - 1].isalnum() or text[at - 1] == '_')):
            end = text.find(')' + raw.group(1) + '"', raw.end())
            end = len(text) if end < 0 else end + len(raw.group(1)) + 2
            out.append('"' + blank(text[at + 1:end - 1]) + '"')
        elif text[at] == '"':
            end = end_of_literal(text, at, '"')
            out.append('"' + blank(text[at + 1:end - 1]) + text[end - 1])
        elif text[at] == "'" and not (at > 0 and (text[at - 1].isalnum() or text[at - 1] == '_')):
            end = end_of_literal(text, at, "'")
            out.append("'" + blank(text[at + 1:end - 1]) + text[end - 1])
        else:
            out.append(text[at])  # also the ' in 1'000'000
            at += 1
            continue
        at = end
    return ''.join(out)


def strip_directives(text):
    """Blanks preprocessor lines with their continuations; expects text whose literals are stripped."""
    lines = text.split('\n')
    inside = False
    for number, line in enumerate(lines):
        if inside or line.lstrip().startswith('#'):
            inside = line.rstrip().endswith('\\')
            lines[number] = ' ' * len(line)
    return '\n'.join(lines)


def line_of(text, offset):
    return text.count('\n', 0, offset) + 1


def read(root, name):
    """Text of a source file; bytes that are not UTF-8 do not stop the tests."""
    return (pathlib.Path(root) / name).read_text(encoding='utf-8', errors='replace')


def run(check, self_test, arguments):
    """The command line all lint tests share: ROOT checks the tree, --self-test checks the checker."""
    if arguments == ['--self-test']:
        self_test()
        print('self-test passed')
        return 0
    if len(arguments) != 1:
        print('usage: CHECK.py ROOT | --self-test')
        return 2
    files_checked, complaints = check(arguments[0])
    for complaint in complaints:
        print(complaint)
    print(f'{files_checked} files checked, {len(complaints)} complaints')
    if files_checked == 0:
        print('no file was found: the test looks at the wrong folder')
        return 1
    return 1 if complaints else 0
