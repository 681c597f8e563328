"""The sample rate and the frame rate of ditto."""

SAMPLE_RATE = 16_000  # samples of speech a second
FPS = 25  # frames a second
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS  # 640
