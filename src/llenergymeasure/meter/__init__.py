"""The meter: sensors, the recorder that samples them, and energy with its uncertainty."""
