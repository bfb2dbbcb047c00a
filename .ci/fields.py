"""Shows a dataclass's fields under its text, each with its type and the comment that stands behind it in the code."""

import re

from griffe import Class, Docstring, Extension


class Fields(Extension):
    def on_class_members(self, *, cls: Class, **_: object) -> None:
        if not any("dataclass" in str(each.value) for each in cls.decorators):
            return
        lines = cls.filepath.read_text(encoding="utf-8").splitlines()
        listed = []
        for name, attribute in cls.attributes.items():
            if attribute.annotation is None or name.startswith("_"):
                continue
            comment = re.search(r"  # (.*)", "\n".join(lines[attribute.lineno - 1 : attribute.endlineno]))
            said = f": {comment[1]}" if comment else ""
            listed.append(f"- `{name}`, `{attribute.annotation}`{said}")
        if listed:
            text = cls.docstring.value if cls.docstring else ""
            cls.docstring = Docstring("\n".join([text, "", *listed]), parent=cls)
