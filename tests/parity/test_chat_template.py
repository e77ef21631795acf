"""ChatTemplate renders what transformers renders."""

from __future__ import annotations

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from gpt_edge.generate.chat_template import ChatTemplate, Message

TEMPLATES = {
    "chatml": "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama": "{{ bos_token }}{% for message in messages %}{% if loop.index0 == 0 and "
    "message['role'] == 'system' %}<<SYS>>{{ message['content'] }}<</SYS>>{% elif "
    "message['role'] == 'user' %}[INST] {{ message['content'] | trim }} [/INST]{% else %}"
    " {{ message['content'] | trim }} {{ eos_token }}{% endif %}{% endfor %}",
    "blocks": "{%- for message in messages -%}\n    {% if message.role == 'user' %}\n"
    "    Q: {{ message.content }}\n    {% else %}\n    {% generation %}A: {{ message.content }}"
    "{% endgeneration %}\n    {% endif %}\n{% endfor %}\n{{ messages | tojson }}",
}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.mark.parametrize("name", TEMPLATES)
def test_it_renders_as_transformers_does(name: str) -> None:
    messages: list[Message] = [
        {"role": "system", "content": "Be kind & <brief>.\n"},
        {"role": "user", "content": "  Hé?\n"},
        {"role": "assistant", "content": "Yes. "},
        {"role": "user", "content": "{{ 7 * 7 }} 'quoted' \"twice\""},
    ]
    expected, _ = render_jinja_template(
        [messages], chat_template=TEMPLATES[name], add_generation_prompt=True, **TOKENS
    )
    assert [ChatTemplate(TEMPLATES[name], TOKENS).render(messages)] == expected
