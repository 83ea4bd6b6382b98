"""A store's images in Milvus: publish them there, and search them as one searches a store."""
