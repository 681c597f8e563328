"""What MediaPipe's FaceLandmarker sees in RGB frames on standard input: one JSON object a frame on standard output.

Needs `mediapipe` and NumPy alone, so that another Python than ditto's can run it:

    PYTHON benchmarks/_blendshapes.py face_landmarker.task HEIGHT WIDTH FPS

Each has "shapes", scores by name, and "rotation", 3 x 3; a frame without a face gives null. A line with "about" comes first.
FPS 0: the frames do not follow each other; a face is looked for in each on its own.
"""

import json
import sys

import numpy as np


def main() -> None:
    model, height, width, fps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=model),
        running_mode=vision.RunningMode.VIDEO if fps else vision.RunningMode.IMAGE,
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
    )
    print(json.dumps({"about": {"mediapipe": mediapipe.__version__}}), flush=True)
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        number = 0
        while len(raw := sys.stdin.buffer.read(height * width * 3)) == height * width * 3:
            image = mediapipe.Image(
                image_format=mediapipe.ImageFormat.SRGB, data=np.frombuffer(raw, np.uint8).reshape(height, width, 3)
            )
            found = landmarker.detect_for_video(image, round(1000 * number / fps)) if fps else landmarker.detect(image)
            seen = None
            if found.face_blendshapes:
                shapes = {shape.category_name: float(f"{shape.score:.5g}") for shape in found.face_blendshapes[0]}
                seen = {"shapes": shapes, "rotation": found.facial_transformation_matrixes[0][:3, :3].tolist()}
            print(json.dumps(seen), flush=True)
            number += 1


if __name__ == "__main__":
    main()
