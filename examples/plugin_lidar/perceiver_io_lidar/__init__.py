"""What stands before a LiDAR sensor: an adapter and a task for the Perceiver IO toolkit."""
