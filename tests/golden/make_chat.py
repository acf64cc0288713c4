"""Make chat_templates.json: what transformers renders for templates of every common shape.

pip install transformers jinja2
python tests/golden/make_chat.py
"""

# ruff: noqa: E501  (templates have long lines, as the ones that models bring)
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HI = [{"role": "user", "content": "Hi"}]
TALK = [
    {"role": "system", "content": "  Be brief. "},
    {"role": "user", "content": "1 < 2 & \"x\" 'y'?\n"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes. 漢字 😀"},
    {"role": "user", "content": "\n  Why?  \n"},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": 'Temperature & <wind> in a "city", é',
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
CALLS = [
    {"role": "user", "content": "Weather in Zürich?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"type": "function", "function": {"name": "weather", "arguments": {"city": "Zürich"}}}
        ],
    },
    {"role": "tool", "content": '{"celsius": 7}'},
]
PARTS = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "one "},
            {"type": "image"},
            {"type": "text", "text": "two"},
        ],
    }
]

CHATML = """{% for message in messages %}{% if loop.first and message.role != 'system' %}
{{ '<|im_start|>system\\nDefault<|im_end|>\\n' }}{% endif %}
{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}"""

HEADERS = """{{- bos_token }}
{%- set ns = namespace(system="", n=0) %}
{%- if messages[0]['role'] == 'system' %}
    {%- set ns.system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- endif %}
{{- "<|head|>system<|/head|>\\n\\n" ~ ns.system ~ "<|eot|>" }}
{%- for message in messages %}
    {%- set ns.n = ns.n + 1 %}
    {{- '<|head|>' + message['role'] + '<|/head|>\\n\\n' + (message['content'] or '') | trim + '<|eot|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant<|/head|>\\n\\n' }}
{%- endif %} {{ ns.n }}"""

INST = """{{ bos_token }}{% for message in messages %}
{%- if message.role == 'user' %}[INST] {{ message.content }} [/INST]
{%- elif message.role == 'assistant' %}{{ ' ' ~ message.content ~ eos_token }}
{%- elif message.role == 'system' %}<<SYS>>{{ message.content|upper }}<</SYS>>
{%- else %}{{ raise_exception('role ' + message.role) }}{% endif %}
{%- endfor %}"""

ROLE_IN_MARKUP = """{% for message in messages %}{{'<|' + message['role'] + '|>' + '\\n' + message['content'] + '<|end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""

ALTERNATE = """{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"""

WITH_TOOLS = """{%- if tools %}
    {{- '<|im_start|>system\\n# Tools\\n' }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n" ~ (tools | tojson(indent=2)) }}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "assistant" and message.tool_calls %}
        {{- '<|im_start|>' + message.role }}
        {%- for tool_call in message.tool_calls %}
            {%- set tool_call = tool_call.function %}
            {{- '\\n<tool_call>\\n{"name": "' ~ tool_call.name ~ '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- message.content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}"""

THINKING = """{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'assistant' and '</think>' in content %}
        {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {{- '<|im_start|>assistant\\n' }}
        {%- generation %}{{- '[' ~ reasoning ~ '] ' ~ content }}{% endgeneration %}
    {%- else %}
        {{- '<|im_start|>' ~ message.role ~ '\\n' ~ content }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

LOOPS = """{% macro show(part) %}({{ part.type }}{{ ':' ~ part.text if part.text is defined }}){% endmacro %}
{% for message in messages %}
  {% if message.content is string %}
    {% continue %}
  {% endif %}
  {% for part in message.content %}
    {% if loop.index > 3 %}{% break %}{% endif %}
{{ show(part) }}
  {% endfor %}
{% endfor %}
{{ messages | map(attribute='role') | join(', ') }} {{ messages | length }} {{ dict(a=1) | tojson }}
{{ messages[::-1] | selectattr('role', 'equalto', 'user') | list | length }} {{ range(3) | list }}"""

LAST_QUERY = """{%- set ns = namespace(looking=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.looking and message.role == "user" and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.looking = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set thought = '' %}
    {%- set content = message.content if message.content is not none else '' %}
    {%- if message.role == "assistant" and '</think>' in content %}
        {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if thought and loop.index0 > ns.last %}{{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}{% endif %}
    {{- content }}
    {%- if message.tool_calls %}
        {%- for call in message.tool_calls %}
            {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{% endif %}
            {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""

DATED = """{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|head|>system<|/head|>\\n\\nToday: " + date_string + "\\n\\n" + system_message + "<|eot|>" }}
{%- if tools is not none and messages | length != 0 %}
    {%- set first = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
    {{- '<|head|>user<|/head|>\\n\\nFunctions:\\n\\n' }}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
    {{- first + "<|eot|>" }}
{%- endif %}
{%- for message in messages %}
    {%- if 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("one at a time") }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|head|>assistant<|/head|>\\n\\n{"name": "' + call.name + '", "parameters": ' ~ (call.arguments | tojson) ~ "}<|eot|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|head|>ipython<|/head|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}{%- else %}{{- message.content }}{%- endif %}
        {{- "<|eot|>" }}
    {%- else %}
        {{- '<|head|>' + message['role'] + '<|/head|>\\n\\n'+ message['content'] | trim + '<|eot|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|head|>assistant<|/head|>\\n\\n' }}{%- endif %}"""

CASES: list[tuple[str, str, list[dict[str, Any]], dict[str, Any]]] = [
    ("chatml", CHATML, HI, {}),
    ("chatml talk", CHATML, TALK, {}),
    ("chatml no prompt", CHATML, TALK, {"add_generation_prompt": False}),
    ("headers", HEADERS, HI, {}),
    ("headers talk", HEADERS, TALK, {}),
    ("inst", INST, TALK, {}),
    ("role in markup", ROLE_IN_MARKUP, TALK, {}),
    ("role in markup, done", ROLE_IN_MARKUP, TALK, {"add_generation_prompt": False}),
    ("alternate", ALTERNATE, TALK[1:], {}),
    ("tools", WITH_TOOLS, CALLS, {"tools": TOOLS}),
    ("no tools", WITH_TOOLS, CALLS, {}),
    ("thinking", THINKING, TALK, {}),
    ("not thinking", THINKING, TALK, {"enable_thinking": False}),
    ("last query", LAST_QUERY, TALK, {}),
    ("last query, calls", LAST_QUERY, CALLS, {"tools": TOOLS}),
    ("dated", DATED, TALK, {}),
    ("dated, calls", DATED, CALLS, {"tools": TOOLS, "date_string": "1 Jan 2025"}),
    ("loops", LOOPS, PARTS, {}),
    ("loops over text", LOOPS, TALK + PARTS, {}),
]


def main() -> None:
    """Write the goldens beside this file."""
    from transformers.utils.chat_template_utils import render_jinja_template

    rows = []
    for name, template, messages, kwargs in CASES:
        options = {"add_generation_prompt": True, **kwargs}
        tokens = {"bos_token": "<|begin|>", "eos_token": "<|end|>"}
        tools = options.pop("tools", None)
        rendered, _ = render_jinja_template(
            conversations=[messages], chat_template=template, tools=tools, **tokens, **options
        )
        given = {"name": name, "template": template, "messages": messages, "kwargs": kwargs}
        rows.append({**given, "text": rendered[0]})
    text = ",\n".join(json.dumps(row) for row in rows)
    Path(__file__).with_name("chat_templates.json").write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    main()
