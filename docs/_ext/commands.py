"""``.. commands::`` (in ``eval-rst``): the command line's commands, arguments and options, from the commands themselves."""

from typing import Any

import typer
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Commands(SphinxDirective):
    """A section for every command, with a table of what it takes."""

    def run(self) -> list[nodes.Node]:
        from captum_leam.cli import app

        group: Any = typer.main.get_command(app)
        sections = []
        for name, command in group.commands.items():
            section = nodes.section(ids=[nodes.make_id(f"captum-leam {name}")])
            section += nodes.title(text=f"captum-leam {name}")
            self.state.nested_parse(StringList(described(command), f"captum-leam {name}"), 0, section)
            sections.append(section)
        return sections


def described(command: Any) -> list[str]:
    """A command in reStructuredText: its help, and a table of its parameters."""
    lines = [
        *(command.help or "").splitlines(),
        "",
        ".. list-table::",
        "   :header-rows: 1",
        "   :widths: 30 50 20",
        "",
    ]
    lines += ["   * - argument or option", "     - what it is", "     - default"]
    for parameter in command.params:
        if parameter.name == "help":
            continue
        names = [*parameter.opts, *parameter.secondary_opts]
        called = ", ".join(f"``{n}``" for n in names) if parameter.param_type_name == "option" else names[0].upper()
        lines += [f"   * - {called}", f"     - {parameter.help or ''}", f"     - {default(parameter)}"]
    return [*lines, ""]


def default(parameter: Any) -> str:
    """What is taken when nothing is said."""
    if parameter.required:
        return "needed"
    value = parameter.default() if callable(parameter.default) else parameter.default
    empty = value is None or value == "" or (isinstance(value, list | tuple) and not value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return "" if empty else f"``{value}``"


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
