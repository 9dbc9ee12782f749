"""Messages: what is taken, and that nothing else is, whatever comes."""

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelrl.serving.client.wire import WireError, one_line, pack, unpack
from pixelrl.serving.protocol import read_request


def as_openpi_packs(array: np.ndarray) -> dict[bytes, object]:
    return {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": array.shape}


@pytest.mark.parametrize("flat", [True, False])
def test_arrays_come_back_as_they_were(flat: bool) -> None:
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    vector = np.array([1.5, -2.0], np.float32)
    message = pack({"picture": picture[:, ::-1], "vector": vector, "pixelrl/seq": 3})
    back = unpack(message, flat=flat)
    np.testing.assert_array_equal(back["picture"], picture[:, ::-1])
    np.testing.assert_array_equal(back["vector"], vector)
    assert back["picture"].dtype == np.uint8 and back["vector"].dtype == np.float32 and back["pixelrl/seq"] == 3


def test_wire_is_openpis() -> None:
    vector = np.array([1.0, 2.0], np.float32)
    assert msgpack.unpackb(pack({"v": vector})) == {"v": {**as_openpi_packs(vector), b"shape": [2]}}
    np.testing.assert_array_equal(unpack(msgpack.packb({"v": as_openpi_packs(vector)}), flat=True)["v"], vector)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"a": np.zeros(2, np.float64)}, "type '<f8'; expected |u1 or <f4"),
        ({"a": np.zeros(2, ">f4")}, "type '>f4'"),
        ({"a": np.zeros(2, "M8[s]")}, "type '<M8[s]'"),
        ({"a": {b"__ndarray__": True, b"data": b"", b"dtype": "|O", b"shape": [1]}}, "type '|O'"),
        ({"a": {b"__ndarray__": True, b"data": b"", b"dtype": 5, b"shape": [1]}}, "type 5; expected"),
        ({"a": {b"__ndarray__": True, b"data": b"1234", b"dtype": "<f4", b"shape": [2**31, 2**31]}}, "of shape"),
        ({"a": {b"__ndarray__": True, b"data": b"1234", b"dtype": "<f4", b"shape": [2]}}, "with 4 bytes"),
        ({"a": {b"__ndarray__": True, b"data": b"1234", b"dtype": "<f4", b"shape": [-1]}}, "positive integers"),
        ({"a": {b"__ndarray__": True, b"data": b"", b"dtype": "<f4", b"shape": [0]}}, "positive integers"),
        ({"a": {b"__ndarray__": True, b"data": b"1", b"dtype": "|u1", b"shape": [True]}}, "shape"),
        ({"a": {b"__ndarray__": True, b"data": b"1", b"dtype": "|u1", b"shape": [1] * 5}}, "at most four"),
        ({"a": {b"__ndarray__": True, b"data": "1", b"dtype": "|u1", b"shape": [1]}}, "without data"),
        ({"a": {b"__ndarray__": True}}, "with the parts"),
        ({"a": {b"__npgeneric__": True, b"data": 1.0, b"dtype": "<f4"}, "b": {"c": {}}}, "must not lie in a map"),
        ({"a": {"b": {"c": 1}}}, "must not lie in a map"),
        ({"a": [[1]]}, "a list must be the shape"),
        ({"a": msgpack.ExtType(5, b"x")}, "not a message|extension"),
        ({"a": msgpack.Timestamp(1, 1)}, "not a message|extension"),
        ({"a": "x" * 5000}, "not a message"),
        ({f"k{k}": 1 for k in range(65)}, "not a message"),
        ({1: 2}, "not a message"),
        ({b"raw": 2}, "texts as keys"),
        ([1, 2], "expected a map"),
        (None, "expected a map"),
    ],
    ids=str,
)  # fmt: skip
def test_message_of_another_kind_is_refused(content: object, says: str) -> None:
    if isinstance(content, dict):
        content = {k: as_openpi_packs(v) if isinstance(v, np.ndarray) else v for k, v in content.items()}
    with pytest.raises(WireError) as error:
        unpack(msgpack.packb(content), flat=True)
    assert any(part in str(error.value) for part in says.split("|") if part), error.value


@pytest.mark.parametrize("message", [b"", b"\xc1", b"\x80\x80", b"\x91" * 100_000, b"\xdf\xff\xff\xff\xff", "text"])
def test_bytes_that_are_no_message_are_refused(message: bytes | str) -> None:
    with pytest.raises(WireError):
        unpack(message, flat=True)
    with pytest.raises(WireError):
        unpack(message, flat=False)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from([b"__ndarray__", b"data", b"dtype", b"shape"]), inner)
        | st.fixed_dictionaries(
            {
                b"__ndarray__": st.just(True),
                b"data": st.binary(max_size=16),
                b"dtype": st.sampled_from(["|u1", "<f4", "|O", "<f8", "V8", "nonsense"]) | inner,
                b"shape": st.lists(st.integers(-2, 20), max_size=5) | inner,
            }
        )
    ),
    max_leaves=12,
)
names = st.sampled_from(
    ["front_image", "position", "pixelrl/seq", "pixelrl/stamp_ns", "pixelrl/reset", "endpoint", "x"]
)
hostile = st.dictionaries(names, values).map(msgpack.packb) | st.binary(max_size=64) | values.map(msgpack.packb)


@settings(max_examples=300, deadline=None)
@given(hostile)
def test_hostile_message_is_refused_in_one_line_or_read(message: bytes) -> None:
    try:
        request = read_request(message, {})
    except WireError as error:
        assert "\n" not in str(error)
    else:
        for value in request.sensors.values():
            assert value.dtype in (np.uint8, np.float32) and 1 <= value.nbytes <= len(message)


def test_text_of_an_error_is_one_short_line() -> None:
    assert one_line("a\nb\x1b[31m\r c") == "a b?[31m c"
    assert len(one_line("x" * 9999)) == 300


def test_arrays_that_cannot_be_sent_are_told() -> None:
    with pytest.raises(WireError, match="float64 cannot be sent"):
        pack({"a": np.zeros(2)})
    with pytest.raises(WireError, match="object cannot be sent"):
        pack({"a": np.array([None])})
