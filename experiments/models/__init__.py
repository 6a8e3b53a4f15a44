"""A trained model on its way in and out: found, named, described, put on the hub, asked."""
