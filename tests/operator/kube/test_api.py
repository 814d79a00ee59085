"""What an error of the API server means for whoever would ask again."""

import pytest

from yolastic_operator.cluster.api import ApiError


@pytest.mark.parametrize("code", [0, 401, 408, 409, 429, 500, 503])
def test_what_may_be_over_soon_is_worth_another_try(code: int) -> None:
    assert not ApiError("create", code).in_vain


@pytest.mark.parametrize("code", [400, 403, 404, 410, 413, 422])
def test_what_was_refused_is_refused_again(code: int) -> None:
    assert ApiError("create", code).in_vain
