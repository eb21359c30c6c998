"""No value of any flag becomes part of a script: hostile values against every launcher, in a sandbox."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from absl import flags
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from launch import kubernetes, local, slurm
from launch.plan import Command, File, Plan, script
from launch.quoting import for_directive, for_manifest, for_shell
from reland_jax.types import RelandError
from tests.launch.test_launchers import IMAGE, LAUNCHERS, NEEDED, WORKDIR, undouble

CANARY = "PWN"
HOSTILE = st.lists(
    st.sampled_from([
        f"$(touch {CANARY})", f"`touch {CANARY}`", f"\ntouch {CANARY}\n#", f"; touch {CANARY};",
        f"&& touch {CANARY} ", f"| touch {CANARY}", f">{CANARY}", "'", '"', "\\", "\n", "\r", "\t", " ",
        "-x", "--", "#", "$HOME", "${IFS}", "$index", "~", "*", "{", "}", "{name}", "END", "\nEND\n", "\x85",
        "\u2028", "\u2029", "\ufeff", "\u200b", "\U0001f600", "é", "%s", "!", ",", "=", "/", "\x7f", "\x0b",
    ])
    | st.text(max_size=4),
    min_size=1,
    max_size=5,
).map("".join)  # fmt: skip
NOT_MEANT = ("flagfile", "undefok")  # absl's own

NOTE = 'printf "%s\\0" "${0##*/}" "$@" >>"$LOG"; printf "\\0" >>"$LOG"\n'
TOOLS = {
    "gcloud": 'case " $* " in *" describe "*) echo NOT_FOUND >&2; exit 1 ;; esac',
    "curl": "echo 0",
    **dict.fromkeys(("docker", "srun", "sbatch", "scontrol", "kubectl", "python"), ""),
    **dict.fromkeys(("mountpoint", "gcsfuse", "mount", "mount.nfs", "cp", "tee", "sleep"), ""),
}


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stand-ins that write down the words they are given, and a few real programs."""
    folder = tmp_path_factory.mktemp("tools")
    for name, body in TOOLS.items():
        (folder / name).write_text(f"#!/bin/bash\n{NOTE}{body}\n")
        (folder / name).chmod(0o755)
    for name in ("bash", "mkdir", "cat", "touch", "head"):
        (folder / name).symlink_to(f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}")
    return folder


def run_script(text: str, folder: Path, tools: Path) -> None:
    """Runs a script among the stand-ins."""
    environment = {"PATH": str(tools), "LOG": str(folder / "log"), "HOME": "/nowhere"}
    environment |= {"SLURM_JOB_NODELIST": "node", "SLURM_JOB_ID": "1"}
    checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
    assert checked.returncode == 0, f"{checked.stderr}\n{text}"
    subprocess.run(
        ["bash", "-c", text], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=10,
    )  # fmt: skip


def calls(folder: Path) -> list[list[str]]:
    """The words of every call of a stand-in."""
    log = folder / "log"
    text = log.read_bytes().decode() if log.exists() else ""
    return [call.split("\0") for call in text.split("\0\0") if call]


def texts_in(value: Any) -> Iterator[str]:
    """Every text of a manifest."""
    if isinstance(value, str):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from texts_in(each)


def text_flags(launcher: ModuleType) -> list[str]:
    """Flags of a launcher whose value is any text."""
    values = flags.FlagValues()
    launcher.define_flags(values)
    kinds = {name: values[name].flag_type() for name in values if name not in NOT_MEANT}
    return sorted(name for name, kind in kinds.items() if kind not in ("bool", "int", "float"))


def plan_of(launcher: ModuleType, own: Sequence[str], experiment: Sequence[str]) -> Plan | None:
    """The plan for these flags; None where they are refused."""
    values = flags.FlagValues()
    launcher.define_flags(values)
    try:
        rest = values(["launcher", *NEEDED[launcher], *own, "--", *experiment])[1:]
        plan = launcher.plan(values, rest)
        script(plan)
    except (RelandError, flags.Error):
        return None
    return plan


def check(plan: Plan, folder: Path, tools: Path, expected: Sequence[str]) -> None:
    """Carries out all that a plan would, among stand-ins: nothing of a value is run, all of it arrives."""
    run_script(script(plan), folder, tools)
    found: list[str] = []
    for step in plan:
        if isinstance(step, File):
            assert (folder / step.path).read_bytes().decode() == step.text
            if step.path.endswith(".json"):
                assert yaml.safe_load(step.text) == json.loads(step.text)
                found += texts_in(json.loads(step.text))
            else:
                text = step.text.replace("exec > >(tee -a /var/log/reland.log) 2>&1", "HOSTNAME=reland-0")
                run_script(text.replace("mkdir -p /storage\n", ""), folder, tools)
                lines = [line for line in step.text.split("\n") if line.startswith("#SBATCH")]
                found += [word for line in lines for word in shlex.split(line)[1:]] if lines else []
    found += [word for call in calls(folder) for word in call]
    assert not list(folder.rglob(f"*{CANARY}*")), "a value was run"
    undoubled = [*found, *(word.replace("$$", "$") for word in found)]
    for value in expected:
        assert any(value in word for word in undoubled), f"{value!r} did not arrive"


@pytest.mark.parametrize("launcher", LAUNCHERS)
@settings(
    max_examples=5, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(data=st.data())
def test_no_value_of_any_flag_is_run(
    launcher: ModuleType, tools: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name, value = data.draw(st.sampled_from(text_flags(launcher))), data.draw(HOSTILE)
    given_value = f"MY_KEY={value}" if name == "secret" else value
    word = data.draw(HOSTILE)
    experiment = [f"--workdir={WORKDIR[launcher]}/{data.draw(HOSTILE)}", word, f"--config.a={word}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local.sys, "executable", str(tools / "python"))
        benign = plan_of(launcher, [], experiment)
        hostile = plan_of(launcher, [f"--{name}={given_value}"], experiment)
    for plan, expected in ((benign, experiment), (hostile, [*experiment, value])):
        if plan is None:
            continue
        folder = tmp_path_factory.mktemp("sandbox")
        check(plan, folder, tools, [] if name == "name" else expected)


REPORTED = ["x\ntouch PWN\n#", "$(touch PWN)`touch PWN`", 'a" ; touch PWN; "\\']


@pytest.mark.parametrize("value", REPORTED)
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_text_flag_with_values_that_were_run_once(
    launcher: ModuleType, value: str, tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All flags that take the value at once; the image gets it into the part that is the host, too."""
    monkeypatch.setattr(local.sys, "executable", str(tools / "python"))
    experiment = [f"--workdir={WORKDIR[launcher]}"]
    own = [f"--{name}={value}" for name in text_flags(launcher) if name not in ("secret", "name")]
    own += [f"--image={value}-docker.pkg.dev/p/r/i"] if "image" in text_flags(launcher) else []
    taken = [flag for flag in own if plan_of(launcher, [flag], experiment) is not None]
    plan = plan_of(launcher, taken, experiment)
    assert plan is not None
    check(plan, tmp_path, tools, experiment)


@pytest.mark.parametrize("flag", ["partition", "account", "time", "memory"])
@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\u2028b", "a\x85b", "a\x00b"])
def test_a_directive_is_one_line(flag: str, value: str) -> None:
    values = flags.FlagValues()
    slurm.define_flags(values)
    rest = values(["launcher", f"--{flag}={value}", "--", "--workdir=/shared/run"])[1:]
    with pytest.raises(RelandError, match="a directive of Slurm is one line"):
        slurm.plan(values, rest)


@given(HOSTILE)
def test_a_directive_reads_as_it_was_given(value: str) -> None:
    try:
        line = for_directive("name", value)
    except RelandError:
        assert any(not each.isprintable() for each in value)
        return
    assert line.splitlines() == [line]
    assert shlex.split(line.removeprefix("#SBATCH "), comments=True) == [f"--name={value}"]


@given(st.recursive(HOSTILE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(HOSTILE, inner)))
def test_a_manifest_reads_the_same_as_json_and_as_yaml(value: Any) -> None:
    text = for_manifest(value)
    assert json.loads(text) == value and yaml.safe_load(text) == value


@given(st.lists(HOSTILE, min_size=1))
def test_a_command_reads_as_it_was_given(words: list[str]) -> None:
    if any("\0" in word for word in words):
        with pytest.raises(RelandError, match="NUL"):
            for_shell(words)
    else:
        assert shlex.split(for_shell(words)) == words


@pytest.mark.parametrize("word", ["a\0b", "a\udcffb"])
def test_what_no_command_can_be_given_is_refused(word: str) -> None:
    with pytest.raises(RelandError, match="NUL|UTF-8"):
        str(Command(("echo", word)))
    with pytest.raises(RelandError, match="NUL|UTF-8"):
        for_manifest({"a": word}) if "\udcff" in word else for_shell([word])


@pytest.mark.parametrize("image", ["-v/:/host", "$(touch x)", "a b", "a\nb", "a;b", "", "a//b", "A@sha256:"])
def test_what_is_no_image_is_refused(image: str) -> None:
    values = flags.FlagValues()
    kubernetes.define_flags(values)
    rest = values(["l", f"--image={image}", "--storage=pvc://c", "--", "--workdir=/storage/x"])[1:]
    with pytest.raises(RelandError, match="is not a name of a container image"):
        kubernetes.plan(values, rest)


@pytest.mark.parametrize(
    "image", [IMAGE, "reland", "localhost:5000/a/b:1.0", "gcr.io/p/i@sha256:0123abcd", "a_b/c-d.e:V_1"]
)
def test_images_are_taken(image: str) -> None:
    values = flags.FlagValues()
    kubernetes.define_flags(values)
    rest = values(["l", f"--image={image}", "--storage=pvc://c", "--", "--workdir=/storage/$(A)"])[1:]
    (file, _) = kubernetes.plan(values, rest)
    container = json.loads(file.text)["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == image and undouble(container["args"])[-1] == "--workdir=/storage/$(A)"


def test_a_module_that_is_no_command_is_refused() -> None:
    values = flags.FlagValues()
    local.define_flags(values)
    for module in ("experiments.grid.plan", "experiments.harness.settings", "experiments.configs.reland"):
        rest = values(["local", f"--module={module}", "--", "--workdir=x"])[1:]
        with pytest.raises(RelandError, match=f"{module}: no command but .*experiments.run"):
            local.plan(values, rest)
