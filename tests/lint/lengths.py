#!/usr/bin/env python3
"""A function fits a screen (70 lines), a file 600 lines.

Functions are found by matching braces over text without comments, literals and directives. A brace at namespace or type
scope opens a namespace or a type (looked into), an initialiser (passed over) or a function (measured, from the first
line of its declaration to its closing brace, lambdas inside it included). A named lambda at namespace scope is measured
like a function.
"""

import re
import sys

import source_text

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70

ACCESS = re.compile(r'\s*(public|private|protected)\s*:(?!:)')
ATTRIBUTE = re.compile(r'\[\[.*?\]\]|\b(alignas|__attribute__)\s*\((?:[^()]|\([^()]*\))*\)', re.DOTALL)
OPERATOR = re.compile(r'\boperator\s*(\(\s*\)|\[\s*\]|[^\s\w(]+|[\w:\s*&]+?(?=\())')
TYPE = re.compile(r'\b(class|struct|union|enum)\b')


class Unparsable(Exception):
    pass


def matching_brace(text, start):
    """Offset of the brace that closes the one at start."""
    depth = 0
    for at in range(start, len(text)):
        if text[at] == '{':
            depth += 1
        elif text[at] == '}':
            depth -= 1
            if depth == 0:
                return at
    raise Unparsable(f'line {source_text.line_of(text, start)}: no brace closes this one')


def strip_template(head):
    """Head without a leading template<...> and its requires clause."""
    while re.match(r'\s*template\s*<', head):
        depth = 0
        for at in range(head.index('<'), len(head)):
            depth += {'<': 1, '>': -1}.get(head[at], 0)
            if depth == 0:
                break
        head = head[at + 1:]
        head = re.sub(r'^\s*requires\s*(\((?:[^()]|\([^()]*\))*\)|[\w:]+\s*<[^<>]*>)', ' ', head)
    return head


def classify(head):
    """What a brace after this head opens: 'scope', 'skip' (an initialiser inside the head), or a function's name."""
    plain = strip_template(ATTRIBUTE.sub(' ', head))
    if re.match(r'\s*(inline\s+)?namespace\b', plain) or re.match(r'\s*extern\s*"[^"]*"\s*$', plain):
        return 'scope'
    if re.search(r'\brequires\s*(\([^()]*\))?\s*$', plain):
        return 'skip'  # the body of a requires expression
    operator = OPERATOR.search(plain)
    plain = OPERATOR.sub('operator_name', plain)
    paren = plain.find('(')
    if TYPE.search(plain) and paren < 0:
        return 'scope'
    equals = plain.find('=')
    if equals >= 0 and (paren < 0 or equals < paren):
        is_lambda = re.search(r'\](\s*$|\s*(<[^{}]*>)?\s*\()', plain[equals:])
        return re.findall(r'\w+', plain[:equals])[-1] if is_lambda else 'skip'
    if paren < 0:
        return 'skip'
    if re.search(r'\)[^:]*[^:]:[^:]', plain) and re.search(r'[\w>]\s*$', plain) and not plain.rstrip().endswith('try'):
        return 'skip'  # the constructor initialises a member with braces; its body follows ) or }
    words = re.findall(r'[\w~]+', plain[:paren])
    if not words:
        return 'skip'
    return operator.group(0).strip() if operator and words[-1] == 'operator_name' else words[-1]


def functions_of(text):
    """(name, first line, number of lines) of each function, in file order."""
    text = source_text.strip_directives(source_text.strip_literals(text))
    found = []
    head_start = at = parens = depth = 0
    while at < len(text):
        char = text[at]
        if char in '([':
            parens += 1
        elif char in ')]':
            parens -= 1
        elif char == ';' and parens == 0:
            head_start = at + 1
        elif char == '}':
            depth -= 1
            if depth < 0:
                raise Unparsable(f'line {source_text.line_of(text, at)}: a closing brace that nothing opened')
            head_start = at + 1
        elif char == '{' and parens > 0:
            at = matching_brace(text, at)
        elif char == '{':
            while ACCESS.match(text, head_start):
                head_start = ACCESS.match(text, head_start).end()
            head = text[head_start:at]
            kind = classify(head)
            if kind == 'scope':
                depth += 1
                head_start = at + 1
            else:
                end = matching_brace(text, at)
                if kind != 'skip':
                    first = source_text.line_of(text, head_start + len(head) - len(head.lstrip()))
                    found.append((kind, first, source_text.line_of(text, end) - first + 1))
                    head_start = end + 1
                at = end
        at += 1
    if depth != 0 or parens != 0:
        raise Unparsable('the braces or parentheses of the file do not match')
    return found


def complaints_of(name, text):
    complaints = []
    lines = text.count('\n') + (0 if text.endswith('\n') or not text else 1)
    if lines > FILE_LINES_MAX:
        complaints.append(f'{name}: {lines} lines, at most {FILE_LINES_MAX}')
    try:
        for function, line, length in functions_of(text):
            if length > FUNCTION_LINES_MAX:
                complaints.append(f'{name}:{line}: {function} has {length} lines, at most {FUNCTION_LINES_MAX}')
    except Unparsable as problem:
        complaints.append(f'{name}: its functions cannot be measured: {problem}')
    return complaints


def check(root):
    names = source_text.source_files(root, ['src'], {'.h', '.cc'})
    return len(names), [c for name in names for c in complaints_of(name, source_text.read(root, name))]


# Each sample is one function named target; BODY becomes as many lines as asked for. The number of lines of the sample
# without BODY's is given, so that a detector that starts or ends at the wrong line is caught.
SHAPES = [
    ('int target() {\nBODY\n}\n', 2),
    ('static int\ntarget(int a,\n       int b)\n{\nBODY\n}\n', 5),
    ('namespace a::b {\nnamespace {\nstruct S { int x{1}; };\n\nvoid target() {\nBODY\n}\n}\n}\n', 2),
    ('class C : public B {\n public:\n  C() = default;\n  int target() const noexcept override {\nBODY\n  }\n};\n', 2),
    ('struct C {\n  explicit target(int a) : a_{a}, b_(f({1, 2})), c_{} {\nBODY\n  }\n  int a_;\n};\n', 2),
    ('template <class T, int N = 3>\n  requires (N > 2)\nauto target(T t, Options o = {}) -> Result<T> {\nBODY\n}\n', 4),
    ('constexpr auto target = [](int x) {\nBODY\n};\n', 2),
    ('constexpr int table[] = {1, 2,\n 3};\n[[nodiscard]] int target() {\n  auto f = [&] { return "}"; };\nBODY\n}\n', 3),
    ('enum class E : int { a, b };\nstruct stat target(struct stat* s) {\n  if (s) {\n  } else {\n  }\nBODY\n}\n', 5),
    ('#define M(x) \\\n  do { \\\n  if (x) {\nint before = 1\'000;\n// {\nint target() {\n/* } */ char c = \'}\';\nBODY\n}\n', 3),
    ('const char* s = R"x({{{ "\n)x";\nvoid target() {\n  f(R"({)");\nBODY\n}\n', 3),
    ('alignas(64) struct P {\n  alignas(8) int a[2] = {1, 2};\n  void target() {\nBODY\n  }\n} p;\n', 2),
    ('extern "C" {\nint target(void) try {\nBODY\n} catch (...) {\n}\n}\n', 2),
    ('Foo g{1};\nstd::array<int, 2> h = {1, 2};\nvoid N::S<int>::target() && {\nBODY\n}\n', 2),
    ('template <class T>\nconcept K = requires(T t) { t.x(); };\nvoid target() {\nBODY\n}\n', 2),
]
OPERATORS = ['bool operator==(const S& a) const', 'int operator()(int x)', 'S& operator=(S&& o) noexcept',
             'int& operator[](int i)', 'explicit operator bool() const', 'auto operator<=>(const S& o) const']


def sample(shape, body_lines):
    return shape.replace('BODY', '\n'.join(['  g({1});'] * body_lines))


def self_test():
    for shape, own_lines in SHAPES:
        for total in (own_lines + 1, FUNCTION_LINES_MAX, FUNCTION_LINES_MAX + 1):
            text = sample(shape, total - own_lines)
            functions = [f for f in functions_of(text) if f[0] == 'target']
            assert [f[2] for f in functions] == [total], (shape, total, functions_of(text))
            assert text.split('\n')[functions[0][1] - 1].strip() != '', shape
            complaints = complaints_of('sample.cc', text)
            assert len(complaints) == (1 if total > FUNCTION_LINES_MAX else 0), (shape, total, complaints)
    for head in OPERATORS:
        text = 'struct S {\n  ' + head + ' {\n' + '  f();\n' * 69 + '  }\n};\n'
        assert len(complaints_of('sample.h', text)) == 1, (head, functions_of(text))
    two = sample(SHAPES[0][0], 80).replace('target', 'first') + sample(SHAPES[3][0], 80)
    assert [f[0] for f in functions_of(two)] == ['first', 'target'], functions_of(two)
    assert functions_of('struct S {\n' + '  int a;\n' * 100 + '};\nint t[] = {\n' + '  1,\n' * 100 + '};\n') == []
    for broken in ('int f() {\n', 'int f() { } }\n', 'namespace a {\n'):
        assert 'cannot be measured' in complaints_of('sample.cc', broken)[0], broken
    assert complaints_of('long.cc', '\n' * FILE_LINES_MAX) == []
    assert complaints_of('long.cc', '\n' * FILE_LINES_MAX + ';') == ['long.cc: 601 lines, at most 600']


if __name__ == '__main__':
    sys.exit(source_text.run(check, self_test, sys.argv[1:]))
