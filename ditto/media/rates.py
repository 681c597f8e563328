"""The two clocks of ditto: samples of sound, and frames."""

SAMPLE_RATE = 16_000  # samples a second of speech inside ditto
FPS = 25  # motions, and so frames, a second
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS  # 640
