"""Reranking over HTTP on Ray Serve, with the scorer class of the offline job.

    app               the deployments: one of the API, one for each model
    metrics           what they tell Prometheus
    api               the routes
    service           from a request of any dialect to scores of the model that it names
    front | replica   what every request passes; one model on one device
    batcher  dialects  keys ...   requests to batches; the HTTP APIs that are spoken; who may ask
    fair_queue  work  problems  config   which pairs go next; what API and replicas hand each other

Imports point down only; tests/test_architecture.py holds this.
"""
