"""Jobs of many pictures: requests, manifests, shards and engines."""
