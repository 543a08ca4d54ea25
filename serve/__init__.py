"""Reranking over HTTP on Ray Serve, with the scorer class of the offline job.

    check             a config, before it is deployed
    app               the deployments: one of the API, one for each model
    arguments  room   what is wrong with a config; whether the cluster can hold its replicas
    metrics  rollout  what they tell Prometheus; what became of the last deploy
    api  cascade      FastAPI's routes; a model of several scorers
    service  routes   from a request of any dialect to scores of the model that it names; the paths of all
    front | replica   what comes before the endpoints; one model on one device
    shared_dtype      what `dtype: auto` is, for all replicas of a model
    batcher  keys ... requests to batches; who may ask
    dialects          the HTTP APIs that are spoken, one file each; `dialect` says what a file holds
    window            limits over any minute
    fair_queue  work  problems  config   which pairs go next; what API and replicas hand each other

Imports point down only; import-linter holds this.
"""
