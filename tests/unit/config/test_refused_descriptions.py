"""Descriptions that read well and could not work: refused with file, line and key, before all planning."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import pytest
from descriptions import FILE, SHA, VARIANT, model, variant, write

from podkiln.config import catalog, document, system_packages
from podkiln.config import variant as variants
from podkiln.errors import DescriptionError, SourceError
from podkiln.options import BuildRequest
from podkiln.pipeline import preflight
from podkiln.pipeline.planning import make_plan
from podkiln.plan import image_layers
from podkiln.render import baked_stage, build_context

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.plan.plan import Plan


def refused(folder: Path, text: str) -> DescriptionError:
    """Load a variant and what it offers; return the refusal."""
    path = write(folder / "mine.yaml", text)
    with pytest.raises(DescriptionError) as raised:
        catalog.offered(variants.load(str(path)), catalog.load())
    message = str(raised.value)
    assert message.startswith(f"{path}:")
    assert "\n" not in message
    assert message.endswith((".", "?"))
    return raised.value


@pytest.mark.parametrize(
    ("arguments", "line", "says"),
    [
        ("[--listen=0.0.0.0, --port=9999]", r"arguments\[1\]", "the port is the key runtime.port"),
        ("[--listen=0.0.0.0, --port, '8188']", r"arguments\[1\]", "the port is the key runtime.port"),
        ("[]", "arguments", "this one lacks --listen=0.0.0.0"),
        ("[--listen]", "arguments", r"this one lacks --port=\{port\}"),
        (
            "[--listen, '--port={port}', --use-sage-attention]",
            r"arguments\[2\]",
            "--use-sage-attention needs the Python package sageattention",
        ),
    ],
)
def test_arguments_that_contradict_the_image_are_refused(
    arguments: str, line: str, says: str, tmp_path: Path
) -> None:
    text = variant(f"runtime: {{comfyui: {{arguments: {arguments}}}}}\n")
    assert re.search(rf"mine\.yaml:6: runtime\.comfyui\.{line}: .*{says}", str(refused(tmp_path, text)))


@pytest.mark.parametrize("port", [22, 8888])
def test_a_port_of_another_program_of_the_pod_is_refused(port: int, tmp_path: Path) -> None:
    assert f"runtime.port: {port} is the port of" in str(
        refused(tmp_path, variant(f"runtime: {{port: {port}}}\n"))
    )


@pytest.mark.parametrize("value", ["0" * 64, hashlib.sha256().hexdigest()])
def test_a_hash_that_no_model_has_is_refused(value: str, tmp_path: Path) -> None:
    text = variant(mine=model(own_file(sha256=f"'{value}'")))
    with pytest.raises(DescriptionError, match="the sha256 of an empty file, or a placeholder"):
        variants.load(str(write(tmp_path / "mine.yaml", text)))


def test_memory_modes_go_from_the_least_offloading_to_the_most(tmp_path: Path) -> None:
    modes = "memory_modes:\n- {mode: model_cpu_offload, vram_gb: 8, ram_gb: 8}\n"
    modes += "- {mode: model_full_load, vram_gb: 16, ram_gb: 8}\n"
    with pytest.raises(DescriptionError, match="write them from the least offloading to the most"):
        variants.load(str(write(tmp_path / "mine.yaml", variant(mine=model(more=modes)))))


def test_arguments_whose_package_is_asked_for_are_taken(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("torch\nSageAttention>=2\n")
    arguments = "[--listen, --port, '{port}', --use-sage-attention]"
    text = variant(f"runtime: {{comfyui: {{arguments: {arguments}}}, python: {{requirements: mine.txt}}}}\n")
    described = variants.load(str(write(tmp_path / "mine.yaml", text)))
    assert catalog.offered(described, catalog.load())


def test_a_model_that_requires_itself_is_refused(tmp_path: Path) -> None:
    text = variant(mine=model(more="requires: [model:mine]\n"))
    assert "a model cannot require itself" in str(refused(tmp_path, text))


def own_file(**changed: str) -> str:
    """Return FILE with other values."""
    text = FILE
    for key, value in changed.items():
        text, count = re.subn(rf"(?m)^(.*{key}: ).*$", rf"\g<1>{value}", text)
        text += "" if count else f"  {key}: {value}\n"
    return text


@pytest.mark.parametrize(
    ("more", "key", "says"),
    [
        ("runtime: {port: !!int abc}", "runtime.port", "the tag !!int does not fit 'abc'"),
        ("runtime: {port: !!int 0x1F98}", "runtime.port", "the tag !!int does not fit"),
        ("runtime: {epoch: !!int 1:30}", "runtime.epoch", "the tag !!int does not fit"),
        ("vram_gb: [8, !!int '']", "vram_gb[1]", "the tag !!int does not fit ''"),
        ("runtime: {port: !!float abc}", "runtime.port", "the tag !!float does not fit"),
        ("runtime: {port: !!float .nan}", "runtime.port", "the tag !!float does not fit"),
        ("runtime: {port: !!float 1e999}", "runtime.port", "the tag !!float does not fit"),
        ("abstract: !!bool maybe", "abstract", "the tag !!bool does not fit"),
        ("abstract: !!bool yes", "abstract", "the tag !!bool does not fit"),
        ("runtime: !!null none", "runtime", "the tag !!null does not fit"),
        ("vram_gb: !!seq {a: 1}", "vram_gb", "the tag !!seq does not fit what follows"),
        ("nodes: !!map [a]", "nodes", "the tag !!map does not fit what follows"),
        ("nodes: !!map text", "nodes", "the tag !!map does not fit 'text'"),
        ("nodes: !!str {a: 1}", "nodes", "the tag !!str does not fit what follows"),
        ("vram_gb: !!int [1]", "vram_gb", "the tag !!int does not fit what follows"),
        ("!!int abc: 1", "abc", "the tag !!int does not fit"),
        ("nodes: !!timestamp 2026-99-99", "nodes", "the tag !!timestamp is not used"),
        ("nodes: !!binary ','", "nodes", "the tag !!binary is not used"),
        ("nodes: !!omap [a]", "nodes", "the tag !!omap is not used"),
        ("nodes: !!pairs [a]", "nodes", "the tag !!pairs is not used"),
        ("nodes: !!python/object/apply:os.system [id]", "nodes", "the tag !!python/object/apply:os.system"),
        ("nodes: !mine x", "nodes", "the tag !mine is not used"),
        ("!!merge <<: {tier: prosumer}", "<<", "a key must be text"),
        ('nodes: "\\UFFFFFFFF"', "", "an escape or a directive holds an impossible number"),
        ('nodes: "\\U00110000"', "", "an escape or a directive holds an impossible number"),
    ],
)
def test_a_yaml_tag_that_is_not_true_of_its_value_is_one_sentence(
    more: str, key: str, says: str, tmp_path: Path
) -> None:
    message = str(refused(tmp_path, f"{VARIANT}{more}\n"))
    assert f"mine.yaml:6: {key}: {says}" in message if key else f"mine.yaml:6: {says}" in message


def test_an_impossible_directive_is_one_sentence(tmp_path: Path) -> None:
    assert "an impossible number" in str(refused(tmp_path, f"%YAML {'9' * 5000}.1\n---\n{VARIANT}"))


@pytest.mark.parametrize(
    "more", ["runtime: {port: !!int '80'}", "vram_gb: &v [8]", "vram_gb: !!seq [!!int 8]"]
)
def test_a_tag_and_an_anchor_that_fit_are_read(more: str, tmp_path: Path) -> None:
    assert variants.load(str(write(tmp_path / "mine.yaml", f"{VARIANT}{more}\n")))


def test_a_list_of_packages_that_lacks_what_the_image_needs_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, VARIANT + "runtime: {apt: [ffmpeg, tini]}\n")
    assert "mine.yaml:6: runtime.apt: a list replaces the parent's" in str(error)
    for package in system_packages.load():
        assert (f"{package.name} ({package.purpose})" in str(error)) == (package.name != "tini")
    assert "[ffmpeg, tini, ca-certificates, " in str(error.hint)


def test_the_shipped_list_and_a_longer_one_have_what_the_image_needs(tmp_path: Path) -> None:
    shipped = variants.load("lazy").spec.runtime.apt
    assert system_packages.missing(shipped) == []
    listed = [*(name for name in shipped if name != "systemd-standalone-sysusers"), "systemd", "ffmpeg"]
    path = write(tmp_path / "mine.yaml", f"{VARIANT}runtime: {{apt: [{', '.join(listed)}]}}\n")
    assert "ffmpeg" in variants.load(str(path)).spec.runtime.apt


@pytest.mark.parametrize(
    ("more", "key", "says"),
    [
        ("image: {repository: a//b}", "image.repository", "a part between its slashes is empty"),
        ("image: {repository: /a}", "image.repository", "a part between its slashes is empty"),
        ("image: {repository: a/}", "image.repository", "a part between its slashes is empty"),
        ("image: {repository: You/comfyui}", "image.repository", "upper-case letters"),
        ("image: {repository: 'comfyui:latest'}", "image.repository", "is not letters and digits"),
        ("image: {repository: a..b}", "image.repository", "is not letters and digits"),
        ("image: {repository: a-}", "image.repository", "is not letters and digits"),
        (f"image: {{repository: {'a' * 256}}}", "image.repository", "longer than 255"),
        ("image: {registry: 'https://ghcr.io/you'}", "image.registry", "begins with a scheme"),
        ("image: {registry: ghcr.io/You}", "image.registry", "upper-case letters"),
        ("image: {registry: docker.io}", "image.registry", "Docker Hub needs a namespace"),
        ("image: {registry: ''}", "image.registry", "it is empty"),
        ("runtime: {base: {image: 'debian//x'}}", "runtime.base.image", "slashes is empty"),
        (f"runtime: {{base: {{image: 'debian@sha256:{SHA}'}}}}", "runtime.base.image", "in the key digest"),
        ("runtime: {workspace: /}", "runtime.workspace", "is a folder of the image itself"),
        ("runtime: {workspace: /etc}", "runtime.workspace", "is a folder of the image itself"),
        ("runtime: {workspace: /opt/ComfyUI/output}", "runtime.workspace", "is a folder of the image itself"),
        ("runtime: {workspace: /opt/node-code}", "runtime.workspace", "is a folder of the image itself"),
        ("runtime: {workspace: /opt/node-venvs}", "runtime.workspace", "is a folder of the image itself"),
        ("runtime: {jupyter: ''}", "runtime.jupyter", "expected text that is not empty"),
        ("runtime: {apt: [nginx-]}", "runtime.apt[0]", "expected the name of a Debian package"),
        ("runtime: {apt: [tini, tini]}", "runtime.apt", "'tini' is duplicated"),
        ("vram_gb: [8, 8]", "vram_gb", "8 is duplicated"),
    ],
)
def test_a_value_that_could_not_work_is_refused(more: str, key: str, says: str, tmp_path: Path) -> None:
    message = str(refused(tmp_path, f"{VARIANT}{more}\n"))
    assert f"mine.yaml:6: {key}: " in message
    assert says in message


def test_a_login_in_a_registrys_name_is_not_repeated(tmp_path: Path) -> None:
    message = str(refused(tmp_path, VARIANT + "image: {registry: 'me:hunter2@ghcr.io/you'}\n"))
    assert "docker login" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"folder": "lora"}, r"has no models folder 'lora'\. Did you mean 'loras'\?"),
        ({"folder": "Checkpoints"}, r"no models folder 'Checkpoints'\. Did you mean 'checkpoints'\?"),
        ({"folder": "text-encoder"}, r"Did you mean 'text_encoders'\?"),
        ({"folder": "upscaler_models/x"}, r"Did you mean 'upscale_models'\?"),
        ({"folder": "custom_nodes"}, r"no models folder 'custom_nodes'"),
        ({"folder": "zzz"}, r"no models folder 'zzz'\.$"),
        ({"name": ".wh.model.safetensors"}, r"begins with \.wh\.: in an image layer that deletes a file"),
        ({"name": "a/.wh..wh..opq"}, r"begins with \.wh\."),
        ({"folder": "loras/.wh.x"}, r"begins with \.wh\."),
        ({"path": "a/.wh.model.safetensors"}, r"begins with \.wh\."),
    ],
)
def test_a_place_where_nobody_looks_is_refused(changed: dict[str, str], says: str, tmp_path: Path) -> None:
    error = refused(tmp_path, variant(mine=model(own_file(**changed))))
    assert "define.mine.files[0]" in str(error)
    assert re.search(says, str(error))
    assert error.hint is None or "There are: checkpoints, " in error.hint or "custom_nodes" in str(error)


@pytest.mark.parametrize("folder", ["unet", "clip", "checkpoints/sdxl", "loras"])
def test_folders_that_comfyui_reads_are_taken(folder: str, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", variant(mine=model(own_file(folder=folder))))
    assert catalog.offered(variants.load(str(path)), catalog.load())


def test_a_folder_that_a_required_node_brings_is_taken_but_no_misspelt_one_of_comfyuis(
    tmp_path: Path,
) -> None:
    needs = "requires: [node:comfyui-x]\n"
    path = write(tmp_path / "mine.yaml", variant(mine=model(own_file(folder="x_models"), more=needs)))
    assert catalog.offered(variants.load(str(path)), catalog.load())
    text = variant(mine=model(own_file(folder="Lora"), more=needs))
    assert "Did you mean 'loras'?" in str(refused(tmp_path, text))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"path": "Model.safetensors"}, {"path": "model.safetensors"}),
        ({"name": "caf\u00e9.safetensors"}, {"name": "cafe\u0301.safetensors"}),
        ({"name": "stra\u00dfe.safetensors"}, {"name": "STRASSE.safetensors"}),
        ({"folder": "loras/XL"}, {"folder": "loras/xl", "path": "another.safetensors"}),
    ],
)
@pytest.mark.parametrize("apart", [True, False])
def test_files_that_differ_by_case_or_unicode_form_alone_are_refused(
    one: dict[str, str], other: dict[str, str], apart: bool, tmp_path: Path
) -> None:
    """On exFAT, SMB and APFS they are one file; two models, or one model."""
    first, second = own_file(**one), own_file(**other)
    text = variant(a=model(first), b=model(second)) if apart else variant(a=model(first, second))
    assert "alone: on some volumes they are one" in str(refused(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (model(own_file(optional="true")), r"files: all files are optional"),
        (model(more="requires: ['node:a', 'node:a']\n"), r"requires: 'node:a' is duplicated"),
        (model().replace("[consumer]", "[consumer, consumer]"), r"tiers: 'consumer' is duplicated"),
        (
            model(
                more=f"memory_modes: [{', '.join(['{mode: model_full_load, vram_gb: 1, ram_gb: 1}'] * 2)}]\n"
            ),
            r"memory_modes: 'model_full_load' is duplicated",
        ),
        (
            model(f"- {{url: 'https://h:65536/a.sft', folder: vae, sha256: {SHA}}}\n"),
            r"files\[0\]\.url: expected an https URL",
        ),
        (model().replace("A model", "' '"), r"title: expected text that is not empty"),
    ],
)
def test_a_model_that_says_nothing_or_a_thing_twice_is_refused(text: str, says: str, tmp_path: Path) -> None:
    assert re.search(rf"define\.mine\.{says}", str(refused(tmp_path, variant(mine=text))))


@pytest.mark.parametrize("name", ["all", "none"])
def test_a_model_cannot_be_called_by_a_word_of_the_variable_models(name: str, tmp_path: Path) -> None:
    assert f"define.{name}: {name!r} is a reserved word" in str(refused(tmp_path, variant(**{name: model()})))
    write(tmp_path / "models" / f"{name}.yaml", model())
    with pytest.raises(DescriptionError, match="rename the file"):
        catalog.load(tmp_path / "models")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            "{arguments: ['--listen', '--port={port}', '--nope']}",
            r"mine\.yaml:6: runtime\.comfyui\.arguments: .*no flag --nope",
        ),
        (
            "{arguments: ['--listen', '--port={port}', '--preview-size={prt}']}",
            r"mine\.yaml:6: runtime\.comfyui\.arguments: --preview-size needs",
        ),
    ],
)
def test_what_only_rendering_finds_has_its_place_too(more: str, says: str, tmp_path: Path) -> None:
    named = "name: comfyui-0.33.0-cuda-13.0"  # whose lock is there, whatever the version
    path = write(tmp_path / "mine.yaml", f"{VARIANT}runtime: {{comfyui: {more}, {named}}}\n")
    made = make_plan(variants.load(str(path)), BuildRequest.of((str(path),), no_weights=True))
    with pytest.raises(DescriptionError, match=says):
        build_context.render(made)


def test_a_pin_written_out_whose_release_is_not_described(tmp_path: Path) -> None:
    pin = f"{{version: 0.99.0, commit: {'1' * 40}}}"
    name = "comfyui-0.33.0-cuda-13.0"  # a lock that there is
    path = write(tmp_path / "mine.yaml", f"{VARIANT}runtime: {{name: {name}, comfyui: {pin}}}\n")
    says = r"mine\.yaml:6: runtime\.comfyui: .* there is no file .*python/comfyui"
    with pytest.raises(DescriptionError, match=says) as refused:
        make_plan(variants.load(str(path)), BuildRequest.of((str(path),), no_weights=True))
    assert f"`./build.py comfyui 0.99.0 --variant {path}`" in str(refused.value.hint)


def test_a_name_that_no_file_system_takes_is_no_file(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", f"{VARIANT}runtime: {{python: {{requirements: {'x' * 5000}}}}}\n")
    with pytest.raises(
        DescriptionError, match=r"mine\.yaml:6: runtime\.python\.requirements: there is no file"
    ):
        make_plan(variants.load(str(path)), BuildRequest.of((str(path),)))


@pytest.mark.parametrize(("content", "says"), [(None, "there is no file"), (b"12", "has 2 bytes, and 99")])
def test_a_local_file_that_is_not_as_described_is_said_before_the_build(
    content: bytes | None, says: str, tmp_path: Path
) -> None:
    file = f"- {{local: mine.sft, folder: vae, size: 99, sha256: {SHA}}}\n"
    text = variant(mine=model(file)).replace("{offer: [sdxl-base]}", "{offer: [], bake: [mine]}")
    path = write(tmp_path / "mine.yaml", text)
    if content is not None:
        (tmp_path / "mine.sft").write_bytes(content)
    made = make_plan(variants.load(str(path)), BuildRequest.of((str(path),)))
    with pytest.raises(SourceError, match=f"mine: .*{says}"):
        preflight.check([made], BuildRequest.of((str(path),)), lambda plan: plan)


def test_a_model_that_requires_one_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    message = str(refused(tmp_path, variant(mine=model(more="requires: [model:sdxl-bse]\n"))))
    assert "define.mine.requires[0]: there is no model 'sdxl-bse'. Did you mean 'sdxl-base'?" in message


def test_a_shipped_variants_name_is_taken_whatever_the_suffix(tmp_path: Path) -> None:
    for name in ("lazy.yaml", "lazy.yml"):
        path = write(tmp_path / name, VARIANT)
        with pytest.raises(DescriptionError, match="lazy is the name of a shipped variant"):
            variants.load(str(path))


def test_a_description_with_another_suffix_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    write(tmp_path / "one.yaml", model())
    assert list(catalog.load(tmp_path)) == ["one"]
    write(tmp_path / "two.yml", model())
    with pytest.raises(DescriptionError, match=r"two\.yml:1: the name of a description ends in \.yaml"):
        catalog.load(tmp_path)
    with pytest.raises(DescriptionError, match="rename the file"):
        document.files(tmp_path)


def baking(folder: Path, offer: str, bake: str) -> Plan:
    each = {name: model(own_file(path=f"{name}.safetensors", sha256=SHA, size="99")) for name in "abc"}
    lists = f"{{offer: {offer}, bake: [{bake}]}}"
    text = variant(**each).replace("{offer: [sdxl-base]}", lists)
    path = write(folder / "mine.yaml", text)
    return make_plan(variants.load(str(path)), BuildRequest.of((str(path),)))


@pytest.mark.parametrize("offer", ["[]", "[c, b, a]", "[a, b, c]", "all"])
def test_layers_lie_in_the_order_of_bake_whatever_the_order_of_offer(offer: str, tmp_path: Path) -> None:
    """So a model that is appended to `bake:` leaves all layers before it as they are, and hosts keep them."""
    before, after = baking(tmp_path, offer, "c, a"), baking(tmp_path, offer, "c, a, b")
    for made, order in ((before, ["c", "a"]), (after, ["c", "a", "b"])):
        assert [each.model for each in made.bundles] == order
        weights = [layer.name.partition(":")[0] for layer in made.layers if layer.is_weight]
        assert weights == order
        assert [offer.id for offer in made.baked] == order
        assert [step.name.split("/")[-1][0] for step in baked_stage.steps(made)] == order
    assert after.bundles[:2] == before.bundles
    assert image_layers.of_weights(before.bundles, {}) == list(after.layers[:2])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("env: {A: b}", "the variables of a pod are set in its template"),
        ("runtime: {environment: {A: b}}", "the variables of a pod are set in its template"),
        (
            f"nodes: {{n: {{repo: 'git@github.com:a/b.git', commit: {'0' * 40}}}}}",
            "this is an address for ssh",
        ),
        (f"nodes: {{n: {{repo: 'http://github.com/a/b', commit: {'0' * 40}}}}}", "begins with https://"),
        (f"nodes: {{n: {{repo: 'https://me:hunter2@x.io/b', commit: {'0' * 40}}}}}", "without a login in it"),
    ],
)
def test_what_was_given_is_told_apart(more: str, says: str, tmp_path: Path) -> None:
    message = str(refused(tmp_path, f"{VARIANT}{more}\n"))
    assert says in message
    assert "hunter2" not in message


URL = f"- {{url: 'https://example.com/HERE', folder: loras, sha256: {SHA}}}\n"


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (URL.replace("HERE", ""), "files[0].url: expected a path or file behind the host"),
        (URL.replace("HERE", "\u00e4.safetensors"), "files[0].url: expected a URL of ASCII characters"),
        (URL.replace("HERE", "a b.safetensors"), "files[0].url: expected a URL without blanks: write %20"),
        (URL.replace("HERE", "a.safetensors#b"), "files[0].url: expected a URL without # and"),
        (
            URL.replace("HERE", "download/12345?type=Model"),
            "files[0]: the URL ends in '12345', which has no file ending",
        ),
        (URL.replace("HERE", "x.ZIP"), "files[0].name: 'x.ZIP' is an archive"),
        (
            URL.replace("HERE", "a.sft").replace("}\n", ", size: 5000000000000000000000}\n"),
            "files[0].size: expected a number of at most 18 digits",
        ),
        (
            URL.replace("HERE", "a.sft").replace("}\n", ", size: '50'}\n"),
            "files[0].size: expected a number, and this is text: write '50' without quotes",
        ),
        (
            f"- {{local: none.sft, folder: loras, sha256: {SHA}}}\n",
            "none.sft' does not exist, and the model is not baked",
        ),
    ],
)
def test_a_file_that_no_pod_could_use_is_refused(file: str, says: str, tmp_path: Path) -> None:
    message = str(refused(tmp_path, variant(mine=model(file))))
    assert says in message


def test_a_local_file_that_is_not_baked_is_noted(tmp_path: Path) -> None:
    (tmp_path / "mine.sft").touch()
    file = f"- {{local: mine.sft, folder: vae, size: 99, sha256: {SHA}}}\n"
    path = write(tmp_path / "mine.yaml", variant(mine=model(file)))
    made = make_plan(variants.load(str(path)), BuildRequest.of((str(path),)))
    assert "mine has files of this machine and is not baked: no pod gets it." in made.notes


def test_a_tier_that_the_parents_list_needs_is_missing_in_ones_own_file(tmp_path: Path) -> None:
    found = refused(tmp_path, "extends: base\n")
    assert "mine.yaml:1: tier: this key is missing: `offer: tier` of base.yaml" in str(found)
    assert "consumer, prosumer, datacenter" in str(found.hint)


def test_a_variant_cannot_be_called_all(tmp_path: Path) -> None:
    path = write(tmp_path / "all.yaml", VARIANT)
    with pytest.raises(DescriptionError, match="'all' stands for every shipped variant"):
        variants.load(str(path))


@pytest.mark.parametrize("kind", ["folder", "dead", "loop"])
def test_a_path_that_is_no_file_is_named_as_what_it_is(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("mine.yaml" if kind == "loop" else "nowhere")
    with pytest.raises(DescriptionError, match=r"mine\.yaml is a (folder|link that leads)"):
        variants.load(str(path))
    child = write(tmp_path / "child.yaml", VARIANT.replace("extends: base", "extends: mine.yaml"))
    with pytest.raises(DescriptionError, match=r"child\.yaml:1: extends: .*mine\.yaml is a"):
        variants.load(str(child))


def test_a_path_of_no_file_says_so() -> None:
    with pytest.raises(DescriptionError, match=r"no variant '\./nope\.yaml': there is no such file"):
        variants.load("./nope.yaml")
