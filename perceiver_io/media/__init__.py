"""Files of pictures, sound, video, point clouds and texts, in and out: kept libraries stand behind them."""
