"""Renders a Helm chart without Helm: the part of Go's templates that our chart uses, and nothing else.

An action, a function or a form that is not known here is an error, never silently empty, so that a chart which
renders here uses nothing whose meaning was guessed. Numbers are Python's; maps are walked in the order of their
keys, as Go does.
"""

import hashlib
import json
import pathlib
import re

import yaml

ACTION = re.compile(r"\{\{(-?)(\s*/\*.*?\*/\s*|(?:\"(?:\\.|[^\"\\])*\"|[^\"}]|\}(?!\}))*?)(-?)\}\}", re.S)
TOKEN = re.compile(
    r"\s+|(?P<string>\"(?:\\.|[^\"\\])*\")|(?P<number>-?\d+)(?![\w.])"
    r"|(?P<variable>\$\w*(?:\.\w+)*)|(?P<field>(?:\.\w+)+|\.)|(?P<word>\w+)|(?P<sign>:=|[=()|,])"
)


class ChartError(Exception):
    """What is wrong with a chart, or not known here."""


class Failed(ChartError):
    """The chart itself refused its values."""


def pieces(text):
    """Text and actions, with the white space trimmed that the actions ask to be trimmed."""
    out, at, trim = [], 0, False
    for match in ACTION.finditer(text):
        before = text[at : match.start()]
        before = before.lstrip() if trim else before
        before = before.rstrip() if match[1] else before
        if "{{" in before:
            raise ChartError(f"an action that is not understood: {before[before.index('{{'):][:60]!r}")
        out.append(("text", before))
        inner = match[2].strip()
        if not inner.startswith("/*"):
            out.append(("action", inner))
        at, trim = match.end(), bool(match[3])
    rest = text[at:].lstrip() if trim else text[at:]
    if "{{" in rest:
        raise ChartError("an action that is not closed")
    return out + [("text", rest)]


def tokens(text):
    out, at = [], 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if not match:
            raise ChartError(f"not understood: {text!r}")
        if match.lastgroup:
            out.append((match.lastgroup, match[0]))
        at = match.end()
    return out


def parse(stream, ends=("",)):
    """Nodes up to one of the words that end a block, and the action that ended it."""
    nodes = []
    while stream:
        kind, text = stream.pop(0)
        if kind == "text":
            nodes.append(("text", text))
            continue
        word, _, rest = text.partition(" ")
        if word in ("end", "else"):
            if word not in ends:
                raise ChartError(f"unexpected {text!r}")
            return nodes, text
        if word in ("if", "with", "range"):
            nodes.append(branch(word, rest, stream))
        elif word == "define":
            body, _ = parse(stream, ("end",))
            nodes.append(("define", json.loads(rest), body))
        else:
            nodes.append(("print", tokens(text)))
    if "" not in ends:
        raise ChartError("a block is not closed")
    return nodes, ""


def branch(word, rest, stream):
    body, ended = parse(stream, ("end", "else"))
    otherwise = []
    if ended == "else":
        otherwise, _ = parse(stream, ("end",))
    elif ended.startswith("else if "):
        otherwise = [branch("if", ended[len("else if ") :], stream)]
    elif ended != "end":
        raise ChartError(f"not understood: {ended!r}")
    return (word, tokens(rest), body, otherwise)


def text_of(value):
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        raise ChartError(f"a map or a list is printed: {value!r}")
    return str(value)


def lookup(value, path):
    for name in path:
        if value is None:
            raise ChartError(f"{'.'.join(path)} of nothing")
        if not isinstance(value, dict):
            raise ChartError(f"{name} of something that is no map")
        value = value.get(name)
    return value


def required(message, value):
    if value is None or value == "":
        raise Failed(message)
    return value


def put(into, key, value):
    into[key] = value
    return into


def indent(count, text):
    return "\n".join(" " * count + line for line in text.split("\n"))


def quote(value):
    return json.dumps(text_of(value), ensure_ascii=False)


def to_yaml(value):
    return yaml.safe_dump(value, default_flow_style=False, sort_keys=True).removesuffix("...\n").rstrip("\n")


FUNCTIONS = {
    "and": lambda *v: next((x for x in v if not x), v[-1]),
    "or": lambda *v: next((x for x in v if x), v[-1]),
    "not": lambda v: not v,
    "eq": lambda a, b: a == b,
    "gt": lambda a, b: a > b,
    "contains": lambda part, whole: part in whole,
    "default": lambda other, value=None: value if value else other,
    "dict": lambda *v: dict(zip(v[::2], v[1::2], strict=True)),
    "indent": indent,
    "int": lambda v: int(v),
    "list": lambda *v: list(v),
    "nindent": lambda count, text: "\n" + indent(count, text),
    "printf": lambda form, *v: form % v,
    "quote": quote,
    "required": required,
    "set": put,
    "sha256sum": lambda v: hashlib.sha256(v.encode()).hexdigest(),
    "toJson": lambda v: json.dumps(v),
    "toYaml": to_yaml,
    "trimSuffix": lambda end, text: text.removesuffix(end),
    "trunc": lambda count, text: text[:count],
    "until": lambda count: list(range(count)),
}


class Scope:
    """Variables of a block, over those around it."""

    def __init__(self, dot, outer=None):
        self.dot, self.outer, self.names = dot, outer, {}

    def find(self, name):
        scope = self
        while scope is not None:
            if name in scope.names:
                return scope
            scope = scope.outer
        raise ChartError(f"no variable {name}")


class Chart:
    """A chart folder."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.about = yaml.safe_load((self.folder / "Chart.yaml").read_text())
        self.values = yaml.safe_load((self.folder / "values.yaml").read_text())
        self.defined, self.files = {}, {}
        for path in sorted((self.folder / "templates").rglob("*")):
            if path.is_dir():
                continue
            try:
                nodes, _ = parse(pieces(path.read_text()))
            except ChartError as error:
                raise ChartError(f"{path.name}: {error}") from None
            for node in nodes:
                if node[0] == "define":
                    self.defined[node[1]] = node[2]
            self.files[str(path.relative_to(self.folder))] = nodes

    def render(self, values, release="varve", namespace="default"):
        """Every file of the templates by name, as text."""
        top = {
            "Values": merged(self.values, values),
            "Chart": {"Name": self.about["name"], "Version": self.about["version"],
                      "AppVersion": self.about["appVersion"]},
            "Release": {"Name": release, "Namespace": namespace, "Service": "Helm"},
        }
        out = {}
        for name, nodes in self.files.items():
            if pathlib.Path(name).name.startswith("_"):
                continue
            try:
                out[name] = self.run(nodes, self.root(top))
            except Failed:
                raise
            except Exception as error:
                raise ChartError(f"{name}: {error}") from error
        return out

    def root(self, dot):
        scope = Scope(dot)
        scope.names["$"] = dot
        return scope

    def run(self, nodes, scope):
        out = []
        for node in nodes:
            kind = node[0]
            if kind == "text":
                out.append(node[1])
            elif kind == "print":
                out.append(self.act(node[1], scope))
            elif kind == "if":
                value = self.pipeline(node[1], scope)
                out.append(self.run(node[2] if value else node[3], Scope(scope.dot, scope)))
            elif kind == "with":
                value = self.pipeline(node[1], scope)
                out.append(self.run(node[2], Scope(value, scope)) if value else self.run(node[3], Scope(scope.dot, scope)))
            elif kind == "range":
                out.append(self.range(node, scope))
        return "".join(out)

    def range(self, node, scope):
        head, names = node[1], []
        if ("sign", ":=") in head:
            cut = head.index(("sign", ":="))
            names = [t for k, t in head[:cut] if k == "variable"]
            head = head[cut + 1 :]
        value = self.pipeline(head, scope) or []
        items = sorted(value.items()) if isinstance(value, dict) else list(enumerate(value))
        if not items:
            return self.run(node[3], Scope(scope.dot, scope))
        out = []
        for key, item in items:
            inner = Scope(item, scope)
            inner.names.update(zip(names, (key, item) if len(names) == 2 else (item,)))
            out.append(self.run(node[2], inner))
        return "".join(out)

    def act(self, parts, scope):
        if len(parts) > 2 and parts[1][0] == "sign" and parts[1][1] in (":=", "="):
            name, value = parts[0][1], self.pipeline(parts[2:], scope)
            where = scope if parts[1][1] == ":=" else scope.find(name)
            where.names[name] = value
            return ""
        return text_of(self.pipeline(parts, scope))

    def pipeline(self, parts, scope):
        commands, depth = [[]], 0
        for part in parts:
            depth += {"(": 1, ")": -1}.get(part[1], 0) if part[0] == "sign" else 0
            if part == ("sign", "|") and depth == 0:
                commands.append([])
            else:
                commands[-1].append(part)
        value = self.command(commands[0], scope, ())
        for command in commands[1:]:
            value = self.command(command, scope, (value,))
        return value

    def command(self, parts, scope, piped):
        values, at = [], 0
        if not parts:
            raise ChartError("an empty command")
        function = parts[0][1] if parts[0][0] == "word" and parts[0][1] not in ("true", "false", "nil") else None
        at = 1 if function else 0
        while at < len(parts):
            value, at = self.operand(parts, at, scope)
            values.append(value)
        if function is None:
            if len(values) != 1 or piped:
                raise ChartError(f"not understood: {parts}")
            return values[0]
        values += piped
        if function == "include":
            if values[0] not in self.defined:
                raise ChartError(f"no template {values[0]!r}")
            return self.run(self.defined[values[0]], self.root(values[1]))
        if function not in FUNCTIONS:
            raise ChartError(f"the function {function!r} is not known here")
        return FUNCTIONS[function](*values)

    def operand(self, parts, at, scope):
        kind, text = parts[at]
        if kind == "string":
            return json.loads(text), at + 1
        if kind == "number":
            return int(text), at + 1
        if kind == "field":
            return lookup(scope.dot, [n for n in text.split(".") if n]), at + 1
        if kind == "variable":
            name, *path = text.split(".")
            return lookup(scope.find(name).names[name], path), at + 1
        if kind == "word" and text in ("true", "false", "nil"):
            return {"true": True, "false": False, "nil": None}[text], at + 1
        if (kind, text) == ("sign", "("):
            depth, end = 1, at + 1
            while depth:
                depth += {("sign", "("): 1, ("sign", ")"): -1}.get(parts[end], 0)
                end += 1
            return self.pipeline(parts[at + 1 : end - 1], scope), end
        if kind == "word":
            return self.command([parts[at]], scope, ()), at + 1
        raise ChartError(f"not understood: {text!r}")


def merged(base, over):
    """Values of the user over those of the chart: maps are merged, everything else is replaced."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {k: merged(base.get(k), over[k]) if k in over else base[k] for k in {**base, **over}}
    return base if over is None else over
