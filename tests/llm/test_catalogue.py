"""The catalogue: rows, names, keys, defaults, and what importing it costs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import anyio
import pytest

from aos_mcp.abi.completion import Prompt, Turn
from aos_mcp.abi.errors import Invalid, ModelError, NotFound, Unavailable
from aos_mcp.abi.settings import ProviderSettings, Settings, parse_settings
from aos_mcp.llm.catalogue import Catalogue
from aos_mcp.llm.providers import load_rows
from aos_mcp.ports import Clock, Models
from aos_mcp.testing.providers import Behaviour, ProviderServer

ROWS = load_rows({}, {})
PROMPT = Prompt(system="", turns=(Turn(role="user", text="Hi."),))


def ignore(_: str) -> None:
    """Take what a model delivers and do nothing."""


def test_importing_the_catalogue_loads_no_sdk() -> None:
    heavy = "{'openai', 'anthropic', 'genai_prices', 'httpx2', 'keyring'}"
    code = f"import sys, aos_mcp.llm.catalogue; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_resolving_a_model_loads_no_sdk() -> None:
    code = """
import sys
from aos_mcp.abi.settings import Settings
from aos_mcp.llm.catalogue import Catalogue
Catalogue(Settings(), {"OPENAI_API_KEY": "k"}, None).resolve("openai/gpt")
print(*({"openai", "anthropic", "genai_prices", "httpx2"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", [n for n, row in ROWS.items() if not row.keyless])
def test_a_missing_key_is_said_with_the_variable_that_would_give_it(name: str, clock: Clock) -> None:
    with pytest.raises(Unavailable) as caught:
        Catalogue(Settings(), {}, clock).resolve(f"{name}/m")
    assert ROWS[name].key_variables[0] in caught.value.hint


def test_an_unknown_provider_is_not_found_and_the_known_are_named(clock: Clock) -> None:
    with pytest.raises(NotFound) as caught:
        Catalogue(Settings(), {}, clock).resolve("nobody/m")
    assert "anthropic" in caught.value.hint


def test_a_name_without_a_model_is_not_found(clock: Clock) -> None:
    with pytest.raises(NotFound):
        Catalogue(Settings(), {}, clock).resolve("openai")


def test_the_same_name_is_the_same_driver(clock: Clock) -> None:
    catalogue: Models = Catalogue(Settings(), {"OPENAI_API_KEY": "k"}, clock)
    assert catalogue.resolve("openai/m") is catalogue.resolve("openai/m")


def test_providers_tell_which_are_ready(clock: Clock) -> None:
    ready = dict(Catalogue(Settings(), {"GROQ_API_KEY": "k"}, clock).providers())
    assert list(ready) == list(ROWS)
    assert {n for n, is_ready in ready.items() if is_ready} == {"groq", "ollama", "vllm", "llamacpp", "lmstudio"}


async def test_a_user_s_own_provider_is_used_like_any_other(server: ProviderServer, clock: Clock) -> None:
    text = f"""
[providers.mine]
base_url = "{server.url}/v1"
key = "env:MY_KEY"
context_tokens = 5000
quirks = {{ max_tokens_field = "max_completion_tokens", extra_body = {{ tier = "slow" }} }}
[prices."mine/*"]
input = 1
output = 2
"""
    async with Catalogue(parse_settings(text, "aos.toml"), {"MY_KEY": "s3cret"}, clock) as catalogue:
        model = catalogue.resolve("mine/m")
        info = await model.describe()
        server.script(Behaviour(text="a", input_tokens=100, output_tokens=10))
        completion = await model.complete(PROMPT, ignore)
    assert info.context_tokens == 5_000
    assert info.price is not None
    assert (info.price.input, info.price.cached, info.price.output) == (1.0, 1.0, 2.0)
    assert completion.usage.microusd == 120
    body, headers = server.requests[0].body, server.requests[0].headers
    assert (body["max_completion_tokens"], body["tier"]) == (4_096, "slow")
    assert headers["authorization"] == "Bearer s3cret"


async def test_a_model_without_a_price_is_unpriced_and_not_free(server: ProviderServer, clock: Clock) -> None:
    settings = Settings(providers={"qwen": ProviderSettings(base_url=f"{server.url}/v1")})
    async with Catalogue(settings, {"DASHSCOPE_API_KEY": "k"}, clock) as catalogue:
        model = catalogue.resolve("qwen/never-heard-of")
        assert (await model.describe()).price is None
        completion = await model.complete(PROMPT, ignore)
    assert (completion.priced, completion.usage.microusd) == (False, 0)
    assert completion.usage.tokens > 0


async def test_a_router_that_says_the_cost_is_believed(server: ProviderServer, clock: Clock) -> None:
    settings = Settings(
        providers={"openrouter": ProviderSettings(base_url=f"{server.url}/v1", quirks={"cost": "completion_tokens"})}
    )
    async with Catalogue(settings, {"OPENROUTER_API_KEY": "k"}, clock) as catalogue:
        server.script(Behaviour(text="a", output_tokens=2))
        completion = await catalogue.resolve("openrouter/x/y").complete(PROMPT, ignore)
    assert completion.usage.microusd == 2_000_000


def test_an_unknown_quirk_is_refused_with_the_nearest_known(clock: Clock) -> None:
    settings = Settings(providers={"openai": ProviderSettings(quirks={"max_token_field": "x"})})
    with pytest.raises(Invalid) as caught:
        Catalogue(settings, {}, clock)
    assert "max_tokens_field" in caught.value.hint


def test_a_new_provider_needs_a_base_url(clock: Clock) -> None:
    with pytest.raises(Invalid):
        Catalogue(Settings(providers={"mine": ProviderSettings(key="env:K")}), {}, clock)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://box:9999", "http://box:9999/v1"),
        ("box:9999", "http://box:9999/v1"),
        ("http://box:9999/", "http://box:9999/v1"),
        ("https://box/proxy/v1", "https://box/proxy/v1"),
    ],
)
def test_a_local_server_is_found_where_its_variable_says(given: str, used: str) -> None:
    assert load_rows({}, {"OLLAMA_BASE_URL": given})["ollama"].base_url == used


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_key_goes_to_the_gateway_that_the_environment_names_beside_it(provider: str) -> None:
    """As the vendor's own programs do: the key beside it may be the gateway's, and nobody else should see it."""
    gateway = "https://gateway.example/models"
    assert load_rows({}, {f"{provider.upper()}_BASE_URL": gateway})[provider].base_url == gateway


def test_every_field_of_a_row_is_one_the_code_reads() -> None:
    folder = Path(sys.modules["aos_mcp.llm.providers"].__file__ or "").parent
    rows = tomllib.loads((folder / "providers.toml").read_text("utf-8"))
    code = "".join(p.read_text("utf-8") for p in folder.glob("*.py") if p.name != "providers.py")
    own = (folder / "providers.py").read_text("utf-8")
    for row in rows.values():
        for field in row:
            assert f".{field}" in code or f"row.{field}" in own, field
        for quirk in row.get("quirks", {}):
            assert f"quirks.{quirk}" in code + own, quirk


def test_warming_a_model_loads_its_sdk_in_the_background_and_no_other() -> None:
    code = """
import sys, threading
from aos_mcp.abi.settings import Settings
from aos_mcp.llm.catalogue import Catalogue
catalogue = Catalogue(Settings(), {"OPENAI_API_KEY": "k"}, None)
for name in ("replay/demo", "nobody/m", "openai/gpt", "openai/gpt"):
    catalogue.warm(name)
loading = [t for t in threading.enumerate() if t.name.startswith("load")]
for thread in loading:
    thread.join()
print(len(loading), *({"openai", "anthropic"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "1 openai", "")


# The default model ---------------------------------------------------------------------------------------------------

NO_OLLAMA = {"OLLAMA_BASE_URL": "http://127.0.0.1:1"}


async def test_the_default_is_the_configured_model_first(clock: Clock) -> None:
    environ = {"AOS_MODEL": "groq/b", "OPENAI_API_KEY": "k"}
    assert await Catalogue(Settings(model="kimi/a"), environ, clock).default() == "kimi/a"
    assert await Catalogue(Settings(), environ, clock).default() == "groq/b"


async def test_the_default_is_that_of_the_first_provider_with_a_key(clock: Clock) -> None:
    catalogue = Catalogue(Settings(), {"MISTRAL_API_KEY": "k", "DEEPSEEK_API_KEY": "k"}, clock)
    name = await catalogue.default()
    assert name == f"deepseek/{ROWS['deepseek'].default_model}"
    catalogue.resolve(name)


async def test_the_default_is_a_reachable_ollama_s_first_model(clock: Clock) -> None:
    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            head = await stream.receive()
            body = b'{"models": [{"name": "qwen2.5:7b"}]}' if b"GET /api/tags " in head else b"{}"
            await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, serve)
            async with Catalogue(Settings(), {"OLLAMA_BASE_URL": f"http://127.0.0.1:{port}"}, clock) as catalogue:
                assert await catalogue.default() == "ollama/qwen2.5:7b"
            group.cancel_scope.cancel()


async def test_without_any_model_the_variables_that_would_give_one_are_named(clock: Clock) -> None:
    async with Catalogue(Settings(), NO_OLLAMA, clock) as catalogue:
        with pytest.raises(Unavailable) as caught:
            await catalogue.default()
    for word in ("AOS_MODEL", "ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        assert word in caught.value.hint


# Keys ----------------------------------------------------------------------------------------------------------------


async def key_sent(server: ProviderServer, clock: Clock, reference: str, environ: dict[str, str]) -> str:
    settings = Settings(providers={"mine": ProviderSettings(base_url=f"{server.url}/v1", key=reference)})
    async with Catalogue(settings, environ, clock) as catalogue:
        await catalogue.resolve("mine/m").complete(PROMPT, ignore)
    return server.requests[-1].headers["authorization"]


async def test_a_key_is_read_from_where_its_reference_says(
    server: ProviderServer, clock: Clock, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text("from-file\n")
    assert await key_sent(server, clock, "env:MINE", {"MINE": "from-env"}) == "Bearer from-env"
    assert await key_sent(server, clock, f"file:{file}", {}) == "Bearer from-file"
    command = f"cmd:{sys.executable} -c \"print('from' + '-command')\""
    assert await key_sent(server, clock, command, {}) == "Bearer from-command"


async def test_a_key_command_does_not_see_other_keys(server: ProviderServer, clock: Clock) -> None:
    seen = "import os; print(*sorted(os.environ.keys() & {'A', 'OPENAI_API_KEY', 'AOS_HTTP_TOKEN'}))"
    command = f'cmd:{sys.executable} -c "{seen}"'
    environ = {"A": "1", "OPENAI_API_KEY": "k", "AOS_HTTP_TOKEN": "t"}
    assert await key_sent(server, clock, command, environ) == "Bearer A"


@pytest.mark.parametrize(
    "reference",
    [f"cmd:{sys.executable} -c 'raise SystemExit(3)'", "cmd:/no/such/program", f"cmd:{sys.executable} -c ''"],
)
async def test_a_key_command_that_gives_nothing_makes_the_provider_unavailable(
    server: ProviderServer, clock: Clock, reference: str
) -> None:
    with pytest.raises(Unavailable):
        await key_sent(server, clock, reference, {})


@pytest.mark.parametrize("key", ["k\u00e9y", "two\nlines"])
async def test_a_key_that_could_not_be_sent_is_refused(server: ProviderServer, clock: Clock, key: str) -> None:
    with pytest.raises(Unavailable) as caught:
        await key_sent(server, clock, "env:MINE", {"MINE": key})
    assert key not in str(caught.value)


async def test_a_keyring_that_is_not_installed_says_how_to_get_it(server: ProviderServer, clock: Clock) -> None:
    if importlib.util.find_spec("keyring"):
        pytest.skip("the keyring package is installed here")
    with pytest.raises(Unavailable) as caught:
        await key_sent(server, clock, "keyring:aos/mine", {})
    assert "pip install keyring" in caught.value.hint


async def test_a_key_in_place_of_a_reference_is_refused_without_repeating_it(
    server: ProviderServer, clock: Clock
) -> None:
    with pytest.raises(Invalid) as caught:
        await key_sent(server, clock, "sk-1234567890", {})
    assert "sk-1234567890" not in str(caught.value)


async def test_a_key_that_was_replaced_is_read_again_after_it_was_refused(
    server: ProviderServer, clock: Clock, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text("old")
    settings = Settings(providers={"mine": ProviderSettings(base_url=f"{server.url}/v1", key=f"file:{file}")})
    async with Catalogue(settings, {}, clock) as catalogue:
        model = catalogue.resolve("mine/m")
        server.script(Behaviour(status=401))
        with pytest.raises(ModelError):
            await model.complete(PROMPT, ignore)
        file.write_text("new")
        await model.complete(PROMPT, ignore)
    assert server.requests[-1].headers["authorization"] == "Bearer new"
