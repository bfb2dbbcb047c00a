"""How model families write a conversation: turns, images, where thinking and answer stand. Data; nothing here knows a class."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from eyeline.scenes.question import Question

TEMPLATE = """\
{{{{- {begin} -}}}}
{{%- if messages[0].role != 'system' -%}}{{{{- {default} -}}}}{{%- endif -%}}
{{%- for message in messages -%}}
{{{{- {opens}[message.role] -}}}}
{{%- if message.content is string -%}}
{{{{- message.content -}}}}
{{%- else -%}}
{{%- for part in message.content -%}}
{{%- if part.type == 'image' -%}}{{{{- {image} -}}}}{{%- else -%}}{{{{- part.text -}}}}{{%- endif -%}}
{{%- endfor -%}}
{{%- endif -%}}
{{{{- {closes}[message.role] -}}}}
{{%- endfor -%}}
{{%- if add_generation_prompt -%}}{{{{- {reply} -}}}}{{%- endif -%}}
"""


@dataclass(frozen=True)
class Speech:
    """What a chat template of the family writes, and what the model writes itself."""

    turns: Mapping[str, tuple[str, str]]  # of each role: what opens and what closes its turn
    image: tuple[str, str, str]  # what opens an image, its token, what closes it
    thought: str  # a reply, with places for trace and answer, up to the token that ends it
    begin: str = ""  # before everything
    system: str = ""  # the system prompt that the template writes where none is given
    opened: str = ""  # how the template begins the reply
    unthought: str = ""  # a reply without thinking; "": the model always thinks
    asks: str = ""  # the system prompt that asks for thinking, where only such a one gets it

    def head(self, system: str) -> str:
        """What stands before the user's turn, and what opens it."""
        opens, closes = self.turns["system"]
        said = system or self.system
        return f"{self.begin}{opens + said + closes if said else ''}{self.turns['user'][0]}"

    @property
    def opening(self) -> str:
        """What stands between the user's turn and the reply."""
        return self.turns["user"][1] + self.turns["assistant"][0] + self.opened

    def reply(self, question: Question, system: str = "") -> tuple[str, int | None]:
        """The reply to a question, and where in it the trace begins; None where it has none."""
        form = self.thought
        if self.unthought and self.asks not in (system or self.system):
            form = self.unthought
        start = form.find("{trace}")
        return form.format(trace=question.trace, answer=question.answer), None if start < 0 else start

    def template(self) -> str:
        """A chat template in Jinja that writes the same."""
        default = self.turns["system"][0] + self.system + self.turns["system"][1] if self.system else ""
        return TEMPLATE.format(
            begin=json.dumps(self.begin),
            default=json.dumps(default),
            opens=json.dumps({role: opens for role, (opens, _) in self.turns.items()}),
            closes=json.dumps({role: closes for role, (_, closes) in self.turns.items()}),
            image=json.dumps("".join(self.image)),
            reply=json.dumps(self.turns["assistant"][0] + self.opened),
        )


def _turns(form: str, close: str) -> dict[str, tuple[str, str]]:
    return {role: (form.format(role), close) for role in ("system", "user", "assistant")}


QWEN_TURNS = _turns("<|im_start|>{}\n", "<|im_end|>\n")
QWEN_IMAGE = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
QWEN3_VL = Speech(
    QWEN_TURNS, QWEN_IMAGE, thought="{trace}\n</think>\n\n{answer}<|im_end|>", opened="<think>\n"
)
GLM4V = Speech(
    _turns("<|{}|>\n", ""),
    ("<|begin_of_image|>", "<|image|>", "<|end_of_image|>"),
    thought="<think>{trace}</think><answer><|begin_of_box|>{answer}<|end_of_box|></answer>",
    begin="[gMASK]<sop>",
)
MIMO_VL = Speech(
    QWEN_TURNS,
    QWEN_IMAGE,
    thought="<think>\n{trace}\n</think>\n\n{answer}<|im_end|>",
    system="You are a small model that thinks about pictures.",
)
COSMOS = Speech(
    QWEN_TURNS,
    QWEN_IMAGE,
    thought="<think>\n{trace}\n</think>\n\n<answer>\n{answer}\n</answer><|im_end|>",
    system="You are a helpful assistant.",
    unthought="{answer}<|im_end|>",
    asks="<think>\nyour reasoning\n</think>\n\n<answer>\nyour answer\n</answer>",
)
