"""Tiny data sets laid out as others lay them out; each writer returns the path."""

import io
import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
from PIL import Image

from pixelrl.launch.mcap_recording import mcap_steps
from pixelrl.launch.recording import Step
from pixelrl.serving.inference import Reply
from pixelrl.serving.protocol import Request

STEPS = 4


def pictures(index: int, steps: int = STEPS, size: tuple[int, int] = (24, 16)) -> Any:
    """Return pictures that JPEG hardly changes, redder to the right and greener downwards, `[N, H, W, 3]`."""
    y, x = np.mgrid[: size[0], : size[1]]
    frames = [np.stack([x * 8 + t, y * 8, x + y + 10 * index], -1) for t in range(steps)]
    return np.stack(frames).astype(np.uint8)


def jpeg(picture: Any) -> bytes:
    """Return a picture as JPEG."""
    Image.fromarray(picture).save(held := io.BytesIO(), format="JPEG", quality=95)
    return held.getvalue()


def write_odd(path: Path) -> Path:
    """Write two demos in robomimic's layout with pictures as JPEG, a grey camera, and vectors of odd types."""
    with h5py.File(path, "w") as file:
        for index in range(2):
            demo, frames = file.create_group(f"data/demo_{index}"), pictures(index, STEPS + 1)
            demo["actions"], demo["rewards"], demo["dones"] = np.zeros((STEPS, 2)), np.eye(STEPS)[-1], np.eye(STEPS)[-1]
            for group, rows in (("obs", slice(0, STEPS)), ("next_obs", slice(1, STEPS + 1))):
                held = demo.create_dataset(f"{group}/front", (STEPS,), h5py.vlen_dtype(np.uint8))
                for row, frame in enumerate(frames[rows]):
                    held[row] = np.frombuffer(jpeg(frame), np.uint8)
                demo[f"{group}/grey"], demo[f"{group}/width"] = frames[rows, ..., 0], np.linspace(0, 1, STEPS)
                demo[f"{group}/closed"], demo[f"{group}/camera/fixed"] = np.arange(STEPS) > 1, np.array([b"no"] * STEPS)
            demo.attrs["success"], demo.attrs["model_file"] = True, "<mujoco/>"
    return path


def write_libero(path: Path, convention: str = "opengl") -> Path:
    """Write two demos as LIBERO's scripts/create_dataset.py does."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        problem = {"problem_name": "libero_kitchen", "language_instruction": "turn on the stove"}
        data.attrs["env_name"], data.attrs["problem_info"] = "Libero_Kitchen_Tabletop", json.dumps(problem)
        data.attrs["macros_image_convention"], data.attrs["bddl_file_name"] = convention, "a.bddl"
        kwargs = {"robots": ["Panda"], "control_freq": 20}
        about = {"type": 1, "env_name": "Libero_Kitchen_Tabletop", "problem_name": "libero", "env_kwargs": kwargs}
        data.attrs["env_args"], data.attrs["num_demos"], data.attrs["total"] = json.dumps(about), 2, 2 * STEPS
        for index in range(2):
            demo, frames = data.create_group(f"demo_{index}"), pictures(index)
            for key in ("agentview_rgb", "eye_in_hand_rgb"):
                demo[f"obs/{key}"] = frames[:, ::-1] if convention == "opengl" else frames
            for key, size in (("gripper_states", 2), ("joint_states", 7), ("ee_states", 6), ("ee_pos", 3)):
                demo[f"obs/{key}"] = np.full((STEPS, size), 0.5)
            demo["actions"], demo["states"] = np.full((STEPS, 7), 0.25), np.zeros((STEPS, 11))
            demo["robot_states"] = np.zeros((STEPS, 9))
            demo["rewards"] = demo["dones"] = np.eye(STEPS, dtype=np.uint8)[STEPS - 1]
            demo.attrs["num_samples"], demo.attrs["model_file"] = STEPS, "<mujoco/>"
            demo.attrs["init_state"] = np.zeros(11)
    return path


def write_isaaclab(path: Path) -> Path:
    """Write two demos, the first successful, as IsaacLab's HDF5DatasetFileHandler does."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = 2 * STEPS
        data.attrs["env_args"] = json.dumps({"env_name": "Isaac-Stack-Cube-Franka-IK-Rel-Visuomotor-v0", "type": 2})
        for index in range(2):
            demo = data.create_group(f"demo_{index}")
            demo.attrs["num_samples"], demo.attrs["seed"], demo.attrs["success"] = STEPS, 7, index == 0
            arrays: dict[str, Any] = {
                "actions": np.full((STEPS, 7), 0.5, np.float32),
                "processed_actions": np.zeros((STEPS, 9), np.float32),
                "initial_state/articulation/robot/joint_position": np.zeros((1, 9), np.float32),
                "states/articulation/robot/joint_position": np.zeros((STEPS, 9), np.float32),
                "states/rigid_object/cube_1/root_pose": np.zeros((STEPS, 7), np.float32),
                "obs/table_cam": pictures(index),
                "obs/eef_pos": np.zeros((STEPS, 3), np.float32),
                "obs/datagen_info/subtask_term_signals/grasp_1": np.zeros(STEPS, bool),
                "obs/datagen_info/object_pose/cube_1": np.zeros((STEPS, 4, 4), np.float32),
            }
            for name, values in arrays.items():
                demo.create_dataset(name, data=values, compression="gzip")
    return path


def write_aloha(folder: Path, *, compress: bool = False) -> Path:
    """Write two episodes as ACT's record_sim_episodes.py does, or as act-plus-plus packs them with OpenCV."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(2):
        with h5py.File(folder / f"episode_{index}.hdf5", "w") as file:
            file.attrs["sim"], lengths = False, []
            for camera in ("cam_high", "cam_left_wrist"):
                frames = pictures(index)
                if compress:
                    packed = [jpeg(np.ascontiguousarray(frame[..., ::-1])) for frame in frames]  # as OpenCV does
                    lengths.append([len(each) for each in packed])
                    rows = np.zeros((STEPS, max(map(len, packed))), np.uint8)
                    for row, each in zip(rows, packed, strict=True):
                        row[: len(each)] = np.frombuffer(each, np.uint8)
                    file[f"observations/images/{camera}"] = rows
                else:
                    file.create_dataset(f"observations/images/{camera}", data=frames, chunks=(1, *frames.shape[1:]))
            for key in ("qpos", "qvel", "effort"):
                file[f"observations/{key}"] = np.full((STEPS, 14), index, np.float32)
            file["action"] = np.full((STEPS, 14), 0.5, np.float32)
            if compress:
                file.attrs["compress"] = True
                file["compress_len"] = np.array(lengths, np.float32)
    return folder


def write_lerobot_old(root: Path, *, video: bool = False) -> Path:
    """Write two episodes as LeRobot v2.1 does: a file an episode, and no rewards, as real robots have none."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    from pixelrl.datasets.convert.pictures import encode_png, encode_video

    (root / "meta").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    rows, top = [], "observation.images.top"
    for index in range(2):
        frames = pictures(index)
        columns: dict[str, Any] = {
            "observation.state": pa.array([[0.5 * index, 1.0]] * STEPS, pa.list_(pa.float32(), 2)),
            "action": pa.array([[0.25, -0.25]] * STEPS, pa.list_(pa.float32(), 2)),
            "timestamp": pa.array(np.arange(STEPS, dtype=np.float32) / 10),
            "frame_index": pa.array(np.arange(STEPS)),
            "episode_index": pa.array(np.full(STEPS, index)),
            "index": pa.array(np.arange(STEPS) + STEPS * index),
            "task_index": pa.array(np.zeros(STEPS, np.int64)),
        }
        if video:
            encode_video(root / f"videos/chunk-000/{top}/episode_{index:06d}.mp4", frames, 10.0)
        else:
            held = [{"bytes": encode_png(each), "path": f"frame_{row:06d}.png"} for row, each in enumerate(frames)]
            columns[top] = pa.array(held, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
        parquet.write_table(pa.table(columns), root / f"data/chunk-000/episode_{index:06d}.parquet")
        rows.append({"episode_index": index, "tasks": ["fold the towel"], "length": STEPS})
    vector = {"dtype": "float32", "shape": [2], "names": ["x", "y"]}
    picture = {"dtype": "video" if video else "image", "shape": [24, 16, 3], "names": ["height", "width", "channel"]}
    count = {"dtype": "int64", "shape": [1], "names": None}
    numbers = ("frame_index", "episode_index", "index", "task_index")
    features = {top: picture, "observation.state": vector, "action": vector} | dict.fromkeys(numbers, count)
    info = {
        "codebase_version": "v2.1",
        "robot_type": "so100",
        "total_episodes": 2,
        "total_frames": 2 * STEPS,
        "total_tasks": 1,
        "total_videos": 2 * video,
        "total_chunks": 1,
        "chunks_size": 1000,
        "fps": 10,
        "splits": {"train": "0:2"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": features | {"timestamp": {"dtype": "float32", "shape": [1], "names": None}},
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "fold the towel"}) + "\n")
    return root


def write_ogbench(path: Path, **more: Any) -> Path:
    """Write two episodes of four steps as OGBench's data_gen_scripts do: five rows each, the last action idle."""
    rows = 2 * (STEPS + 1)
    arrays: dict[str, Any] = {
        "observations": np.concatenate([pictures(index, STEPS + 1) for index in range(2)]),
        "actions": np.arange(rows, dtype=np.float32)[:, None] / 16 * np.ones(5, np.float32),
        "terminals": np.arange(rows) % (STEPS + 1) == STEPS,
        "qpos": np.zeros((rows, 21), np.float32),
        "qvel": np.zeros((rows, 20), np.float32),
    }
    np.savez_compressed(path, **(arrays | more))
    return path


def write_array(root: Path, name: str, values: Any, rows: int, codec: Any = None) -> None:
    """Write an array as Zarr 2 does, so many rows a chunk; with `codec` its chunks are packed by zlib."""
    (root / name).mkdir(parents=True)
    chunks = [rows, *values.shape[1:]]
    about = {"zarr_format": 2, "shape": list(values.shape), "chunks": chunks, "dtype": values.dtype.str, "order": "C"}
    (root / name / ".zarray").write_text(json.dumps({**about, "compressor": codec, "fill_value": 0, "filters": None}))
    for number, start in enumerate(range(0, len(values), rows)):
        part = np.zeros(chunks, values.dtype)
        part[: len(values[start : start + rows])] = values[start : start + rows]
        data = zlib.compress(part.tobytes()) if codec else part.tobytes()
        (root / name / ".".join(map(str, [number] + [0] * (values.ndim - 1)))).write_bytes(data)


def write_replay_buffer(root: Path, *, umi: bool = False, codec: Any = None) -> Path:
    """Write two episodes as diffusion_policy's ReplayBuffer does (pusht), or as UMI's, which is a zip."""
    frames = np.concatenate([pictures(index) for index in range(2)])
    pose = np.arange(6.0 * STEPS, dtype=np.float32).reshape(-1, 3)
    arrays: dict[str, Any] = {
        "img": frames.astype(np.float32),
        "action": np.full((2 * STEPS, 2), 200, np.float32),
        "state": pose,
        "keypoint": np.zeros((2 * STEPS, 9, 2), np.float32),
    }
    if umi:
        arrays = {"camera0_rgb": frames, "robot0_eef_pos": pose, "robot0_eef_rot_axis_angle": pose / 100}
        arrays |= {"robot0_gripper_width": pose[:, :1], "robot0_demo_start_pose": np.zeros((2 * STEPS, 6))}
        arrays |= {"robot0_demo_end_pose": np.zeros((2 * STEPS, 6))}
    for key, values in arrays.items():
        write_array(root, f"data/{key}", values, 1 if key.endswith("rgb") else 3, codec)
    write_array(root, "meta/episode_ends", np.array([STEPS, 2 * STEPS]), 2)
    for folder in (root, root / "data", root / "meta"):
        (folder / ".zgroup").write_text('{"zarr_format": 2}')
    if not umi:
        return root
    with zipfile.ZipFile(packed := root.with_suffix(".zarr.zip"), "w") as file:
        for each in sorted(root.rglob("*")):
            if each.is_file():
                file.write(each, each.relative_to(root))
    return packed


def write_mcap(path: Path) -> Path:
    """Write two episodes as `pixelrl serve --record` does, with a policy that says what they are."""
    spec = {
        "camera": SimpleNamespace(shape=(24, 16, 3), dtype="uint8"),
        "joints": SimpleNamespace(shape=(3,), dtype="float32"),
    }
    dims = [{"name": "dx"}, {"name": "dy"}]
    contract = {"outputs": {"action": {"dims": dims}}, "env_args": {"env_name": "arm", "type": 2, "env_kwargs": {}}}
    policy: Any = SimpleNamespace(instant=spec, contract=contract)
    with mcap_steps(policy, path) as file:
        for index in range(2):
            for number, frame in enumerate(pictures(index), 1):
                sensors = {"camera": frame, "joints": np.full(3, number, np.float32)}
                action = np.full((1, 2), number / 8, np.float32)
                reply = Reply(action=action, normalised=action, clipped=(), infer=0.001, queue=0.002)
                given: dict[str, Any] = {"gap": False, "time_ns": 10**18 + number, "request": Request(sensors=sensors)}
                file.add(index, Step(connection=1, number=number, sensors=sensors, reply=reply, **given))
            file.end(index, "reset by the peer")
    return path


RECORDINGS: dict[str, Callable[[Path], Path]] = {
    "hdf5": lambda folder: write_odd(folder / "odd.hdf5"),
    "libero": lambda folder: write_libero(folder / "libero.hdf5"),
    "isaaclab": lambda folder: write_isaaclab(folder / "isaaclab.hdf5"),
    "ogbench": lambda folder: write_ogbench(folder / "visual-cube-single-play-v0.npz"),
    "mcap": lambda folder: write_mcap(folder / "robot.mcap"),
    "zarr": lambda folder: write_replay_buffer(folder / "umi", umi=True),
    "zarr folder": lambda folder: write_replay_buffer(folder / "pusht.zarr"),
    "lerobot": lambda folder: write_lerobot_old(folder / "old"),
    "aloha": lambda folder: write_aloha(folder / "aloha") / "episode_0.hdf5",
    "aloha packed": lambda folder: write_aloha(folder / "packed", compress=True) / "episode_0.hdf5",
}
"""One good file, or folder, of each kind."""
