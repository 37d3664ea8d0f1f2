"""Files of pictures, sound and video, in and out: one reader each, with kept libraries behind them."""
