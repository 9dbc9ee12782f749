"""How `pixelrl serve --record NAME.mcap` lays out what a policy saw and said.

    /camera/KEY   foxglove.CompressedImage   the picture of an instant, as PNG
    /proprio      pixelrl.Proprioception     the vectors of the same instant
    /action       pixelrl.Action             what was answered to both, and how long it took
    /episode      pixelrl.Episode            an episode is over, and why

All are JSON; no array lies in an array, which a viewer need not know. The messages of a step have one `sequence`, lie
in one chunk, which is not compressed (PNG is), and end with its action. `log_time` is the server's clock: when the
observation came, and when its answer was ready; `publish_time` is the peer's stamp, of its own clock, if it gave one.
The metadata record `pixelrl` says what a data set must; the attachments policy.json and provenance.json say the rest.
https://mcap.dev/spec, https://docs.foxglove.dev/docs/sdk/schemas/compressed-image
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

SUFFIX, PART = ".mcap", ".part"
"""Of a finished recording, and what is added while it is being written, or where its server was killed."""

ABOUT, LAYOUT = "pixelrl", "1"
CAMERA, VECTORS, ACTION, EPISODE = "/camera/", "/proprio", "/action", "/episode"


def about(
    *,
    inputs: Mapping[str, Sequence[int]],
    env_args: Mapping[str, Any],
    action_dims: Sequence[Mapping[str, Any]],
    chunk: int,
    version: str,
) -> dict[str, str]:
    """Return the metadata record: what a data set is besides its episodes.

    Args:
        inputs: observation key -> shape of one instant, `[H, W, C]` or `[D]`.
        env_args: robomimic's description of the environment.
        action_dims: what each dimension of the action means.
        chunk: actions in an answer.
        version: of pixelrl.
    """
    said = {"inputs": inputs, "env_args": env_args, "action_dims": action_dims, "chunk": chunk}
    return {"layout": LAYOUT, "version": version} | {name: json.dumps(value) for name, value in said.items()}


def schemas() -> dict[str, tuple[str, bytes]]:
    """Return topic -> the name of its schema, and the schema itself (JSON Schema)."""
    integer, number, text = {"type": "integer"}, {"type": "number"}, {"type": "string"}
    numbers = {"type": "array", "items": number}
    time = _object("time", sec={**integer, "minimum": 0}, nsec={**integer, "minimum": 0, "maximum": 999_999_999})
    picture = {**text, "contentEncoding": "base64"}
    which = {"connection": integer, "episode": integer, "step": integer}
    one = _object("pixelrl.OneAction", action=numbers, normalised=numbers)
    made = {"seq": integer, "stamp_ns": integer, "infer_ms": number, "queue_ms": number}
    clipped = {"type": "array", "items": text}
    each = {
        CAMERA: _object("foxglove.CompressedImage", timestamp=time, frame_id=text, data=picture, format=text),
        VECTORS: _object("pixelrl.Proprioception", **which, vectors={"type": "object"}),
        ACTION: _object("pixelrl.Action", **which, **made, clipped=clipped, actions={"type": "array", "items": one}),
        EPISODE: _object("pixelrl.Episode", connection=integer, episode=integer, steps=integer, ended=text),
    }
    return {topic: (schema["title"], json.dumps(schema).encode()) for topic, schema in each.items()}


def _object(title: str, **properties: Any) -> dict[str, Any]:
    return {"title": title, "type": "object", "properties": properties}
