"""What `import pixelrl` gives, and what it does not import."""

import subprocess
import sys

import pytest

import pixelrl


@pytest.mark.parametrize("name", pixelrl.__all__)
def test_public_name_is_there(name: str) -> None:
    assert getattr(pixelrl, name) is not None and name in dir(pixelrl)


def test_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'pixelrl' has no attribute 'Recipes'"):
        pixelrl.Recipes  # type: ignore[attr-defined]  # noqa: B018


def test_import_and_policy_of_a_robot_take_no_torch() -> None:
    script = "import sys, pixelrl; pixelrl.ExportedPolicy; pixelrl.__version__; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_library_is_used_by_its_public_names() -> None:
    recipe = pixelrl.quick_cog_dr3()
    assert isinstance(recipe, pixelrl.Recipe) and recipe.critic[-1] == pixelrl.DR3(weight=0.001)
