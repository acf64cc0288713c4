"""What LLM and AsyncLLM share: loading a model, and turning prompts into requests."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from numbers import Integral
from os import PathLike
from typing import TYPE_CHECKING, Any

from nanocupy.engine import generation
from nanocupy.engine.engine import Engine
from nanocupy.engine.options import EngineOptions
from nanocupy.engine.params import MAX_COUNT, SamplingParams
from nanocupy.engine.request import PreparedRequest
from nanocupy.engine.validation import to_int
from nanocupy.quoting import quoted
from nanocupy.text.tokenizer import TooLongError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

    from nanocupy.engine.load import Loaded

Prompt = str | Sequence[int] | Mapping[str, Any]
Messages = Sequence[Mapping[str, Any]]
Params = SamplingParams | Sequence[SamplingParams | None] | None


class ModelWarning(UserWarning):
    """Something in a model's files that is not supported, or has no effect; issued at load."""


class Frontend:
    """A loaded model with its engine.

    Attributes: `tokenizer`, `chat_template` (None where the model has none), `config`,
    `generation_config` (what the model's own file says), `options`, `engine`.
    """

    def __init__(self, model: str | PathLike[str], *, comm: Any = None, **options: Any) -> None:
        """Load `model`, see `checkpoint.resolve`. Options: see EngineOptions.

        Args:
            comm: for programs that use MPI themselves: an mpi4py communicator of the processes that
                share out the layers. Its rank 0 drives; on the others this returns when rank 0 has
                closed its own, and what they get is closed, too; or it raises as on rank 0. Until
                then they hear nothing else: one engine at a time.
        """
        chosen = EngineOptions(**options)
        from nanocupy.engine.load import load

        loaded = load(model, chosen, comm)
        if loaded is None:
            self._start_closed(chosen)
        else:
            self._start(loaded, chosen)

    def _start_closed(self, options: EngineOptions) -> None:
        """Set up a rank that has served rank 0's engine to its end: it refuses every call."""
        raise NotImplementedError

    @classmethod
    def _from_parts(cls, loaded: Loaded, **options: Any) -> Self:
        """Make one around parts that are loaded already (for tests)."""
        made = cls.__new__(cls)
        made._start(loaded, EngineOptions(**options))
        return made

    def _start(self, loaded: Loaded, options: EngineOptions) -> None:
        self.options = options
        self.tokenizer = loaded.tokenizer
        self._chat_template = loaded.chat_template
        self.config = loaded.config
        self.generation_config: dict[str, Any] = dict(loaded.generation_config)
        try:
            self._check_generation_config(loaded.runner.max_model_len, loaded.runner.vocab_size)
            self.engine = Engine(loaded.runner, options, self.tokenizer, self.tokenizer.eos_ids)
        except BaseException:
            loaded.runner.close()
            raise

    @property
    def chat_template(self) -> Any:
        """The model's chat template, None where it has none; compiled with its first use."""
        return self._chat_template()

    @chat_template.setter
    def chat_template(self, template: Any) -> None:
        self._chat_template = lambda: template

    @property
    def end_tokens(self) -> list[str]:
        """The tokens that end an answer, as text."""
        return [self.tokenizer.token_text(i) for i in sorted(self.tokenizer.eos_ids)]

    def default_params(self, **given: Any) -> SamplingParams:
        """SamplingParams as the model's generation_config has them; what is given wins."""
        return generation.params(self.generation_config, given)

    def _check_generation_config(self, longest: int, vocab_size: int) -> None:
        """Refuse sampling values in the model's files that are invalid; warn of unsupported ones.

        Raises:
            ValueError: it names the file, the field, and what is allowed.
        """
        generation.check(self.generation_config, vocab_size)
        raw, notes = getattr(self.config, "raw", {}), [*getattr(self.config, "notes", ())]
        notes += _length_warning(self.config, self.options)
        notes += generation.notes(self.generation_config, raw, longest)
        for text in notes:
            warnings.warn(text, ModelWarning, stacklevel=5)

    # --- prompts ------------------------------------------------------------------------------

    def _prepare(self, prompt: Prompt, params: SamplingParams | None) -> PreparedRequest:
        """Make a request of a prompt. ValueError where it could never be served."""
        params = self._params(params)
        with self._length(params) as limit:
            text, ids = self._tokens(prompt, limit)
        return self._checked(text, ids, params)

    def _prepare_chat(
        self, messages: Messages, params: SamplingParams | None, template: Mapping[str, Any]
    ) -> PreparedRequest:
        """Make a request of a conversation; text in messages never becomes a special token."""
        if self.chat_template is None:
            raise ValueError("[chat] this model has no chat template: use generate with a prompt")
        params = self._params(params)
        with self._length(params) as limit:
            text, ids = self.chat_template.apply(self.tokenizer, messages, limit=limit, **template)
        return self._checked(text, ids, params)

    def _prepare_all(
        self, prompts: Prompt | Sequence[Prompt], params: Params
    ) -> list[PreparedRequest]:
        return self._prepare_each("prompts", as_list(prompts), params, self._prepare)

    def _prepare_chats(
        self, messages: Messages | Sequence[Messages], params: Params, template: Mapping[str, Any]
    ) -> list[PreparedRequest]:
        prepare = partial(self._prepare_chat, template=template)
        return self._prepare_each("messages", as_conversations(messages), params, prepare)

    def _prepare_each(
        self,
        name: str,
        listed: Sequence[Any],
        params: Params,
        prepare: Callable[[Any, SamplingParams | None], PreparedRequest],
    ) -> list[PreparedRequest]:
        """Prepare each of the prompts or conversations; an error says which one it is about."""
        prepared = []
        for index, (one, own) in enumerate(zip(listed, broadcast(params, listed), strict=True)):
            with _prefixed(f"{name}[{index}]", len(listed) > 1):
                prepared.append(prepare(one, own))
        return prepared

    def _params(self, params: SamplingParams | None) -> SamplingParams:
        params = self.default_params() if params is None else params
        if not isinstance(params, SamplingParams):
            raise ValueError(f"[generate] params must be SamplingParams, got {quoted(params)}")
        return params

    @contextmanager
    def _length(self, params: SamplingParams) -> Iterator[int]:
        """Yield how many tokens a prompt may have; turn TooLongError into the engine's error."""
        try:
            yield self.engine.most_prompt(params)
        except TooLongError as error:
            raise self.engine.too_long(error.num_tokens, params, error.least) from None

    def _checked(self, text: str | None, ids: list[int], params: SamplingParams) -> PreparedRequest:
        if not ids:
            if self.tokenizer.bos_id is None:
                raise ValueError("[generate] the prompt is empty, and this model has no BOS token")
            ids = [self.tokenizer.bos_id]
        return self.engine.prepare(ids, params, text)

    def _tokens(self, prompt: Prompt, limit: int) -> tuple[str | None, list[int]]:
        """Return a prompt's text, if it is one, and its ids; read no more than `limit` of them."""
        if isinstance(prompt, Mapping):
            if len(prompt) != 1 or not prompt.keys() <= {"prompt", "prompt_token_ids"}:
                raise ValueError(
                    "[generate] a prompt dict must have one key, 'prompt' or 'prompt_token_ids', "
                    f"got {quoted(sorted(map(str, prompt)))}"
                )
            [(key, prompt)] = prompt.items()
            if isinstance(prompt, str) != (key == "prompt"):
                raise ValueError(f"[generate] '{key}' cannot be a {type(prompt).__name__}")
        if isinstance(prompt, str):
            return prompt, self.tokenizer.encode(prompt, limit=limit)
        if isinstance(prompt, (bytes, Mapping)) or not hasattr(prompt, "__iter__"):
            raise ValueError(
                "[generate] a prompt must be a string, a list of token ids, or a dict with "
                f"'prompt' or 'prompt_token_ids', got {type(prompt).__name__}"
            )
        if hasattr(prompt, "__len__") and len(prompt) > limit:
            raise TooLongError(len(prompt), limit, least=False)
        some = list(islice(prompt, limit + 1))
        if len(some) > limit:
            raise TooLongError(len(some), limit, least=True)
        with _prefixed("[generate] a token id", True):
            return None, [to_int(token, 0, MAX_COUNT) for token in some]


def template_options(
    add_generation_prompt: bool | None,
    continue_final_message: bool,
    tools: Sequence[Mapping[str, Any]] | None,
    template_kwargs: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the arguments of a chat template. ValueError where one is given twice."""
    given = {
        "add_generation_prompt": add_generation_prompt,
        "continue_final_message": continue_final_message or None,
        "tools": tools,
    }
    given = {name: value for name, value in given.items() if value is not None}
    own = dict(template_kwargs or {})
    if twice := sorted(given.keys() & own.keys()):
        raise ValueError(
            f"[chat] {', '.join(twice)} is given twice: leave it out of chat_template_kwargs"
        )
    return {**given, **own}


def _length_warning(config: Any, options: EngineOptions) -> list[str]:
    """Return a warning where sequences are shorter than the model allows."""
    usual, most = getattr(config, "usual_length", 0), getattr(config, "max_position_embeddings", 0)
    if options.max_model_len is not None or usual >= most:
        return []
    return [
        f"sequences have at most {usual:,} positions, this model's original length: "
        f"--max-model-len gives it up to {most:,}, and its factors for long ones"
    ]


def as_list(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """One prompt or many, as many. A list that starts with a number is one prompt's token ids."""
    one: list[Any] = [prompts]
    if isinstance(prompts, (str, bytes, Mapping)) or not hasattr(prompts, "__iter__"):
        return one
    many: list[Any] = list(prompts)
    return one if many and isinstance(many[0], Integral) else many


def as_conversations(messages: Messages | Sequence[Messages]) -> list[Any]:
    """One list of messages or many, as many."""
    if not isinstance(messages, (list, tuple)):
        raise ValueError(
            "[chat] messages must be a list of {'role': ..., 'content': ...} or a list of such "
            f"lists, got {type(messages).__name__}"
        )
    return [messages] if messages and isinstance(messages[0], Mapping) else list(messages)


def broadcast(params: Params, prompts: Sequence[Any]) -> Sequence[SamplingParams | None]:
    """One SamplingParams per prompt."""
    if params is None or isinstance(params, SamplingParams):
        return [params] * len(prompts)
    if isinstance(params, Mapping) or not isinstance(params, Sequence):
        raise ValueError(
            f"[generate] params must be SamplingParams or a list of them, got {quoted(params)}"
        )
    if len(params) != len(prompts):
        raise ValueError(
            f"[generate] params must be one or one per prompt, got {len(params)} for "
            f"{len(prompts)} prompts"
        )
    return params


@contextmanager
def _prefixed(name: str, show: bool) -> Iterator[None]:
    """Put `name` before the message of a ValueError, if `show`."""
    try:
        yield
    except ValueError as error:
        if show:
            error.args = (f"{name}: {error}",)
        raise
