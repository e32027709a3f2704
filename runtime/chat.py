"""Messages to a prompt, with the template that the model brings.

Knows roles and the sandboxed Jinja of `transformers`. Does not know tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jinja2.exceptions import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from ..errors import BadInput

_ROLES = ("system", "user", "assistant", "tool")


def check_messages(messages: Sequence[Mapping[str, str]]) -> None:
    """Every message has a known role and a text.

    Raises:
        BadInput: one has not, or there are none.
    """
    for message in messages:
        if message.get("role") not in _ROLES or not isinstance(message.get("content"), str):
            raise BadInput(f"expected messages with a role of {', '.join(_ROLES)} and a text content, got {message!r}")
    if not messages:
        raise BadInput("expected at least one message, got none")


def render_chat(messages: Sequence[Mapping[str, str]], template: str) -> str:
    """The prompt for the next answer.

    Args:
        messages: oldest first, each with ``role`` (system, user, assistant, tool) and ``content``.
        template: the model's Jinja template; empty for a model that has none, whose prompt is then the contents, one
            after another.

    Raises:
        BadInput: no messages, another role, or the template refuses them.
    """
    check_messages(messages)
    if not template:
        return "\n".join(message["content"] for message in messages)
    try:
        rendered, _ = render_jinja_template(
            [[dict(message) for message in messages]], chat_template=template, add_generation_prompt=True
        )
    except TemplateError as error:
        raise BadInput(f"expected messages that the model's chat template accepts, got: {error}") from error
    return str(rendered[0])
