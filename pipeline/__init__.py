"""Distributed reranking on Ray.

A verb is a command, the noun beside it is its room. Imports point down only; import-linter holds this:

    rerank prepare retrieve mine finetune evaluate verify status   the commands: `python -m pipeline.X`
    command | verification | finetuning            what commands share; the same scores everywhere?; training
    reranking | preparation | retrieval | mining | evaluation   the rooms, which don't know each other
    reporting | output | cluster                   what a job tells; an output's life; joining Ray
    config_file | job_record | job_summary         YAML; whose an output is; what all summaries say
    actor_hours                                    what is left of a job, in time and money
    own_ray                                        a Ray that the process starts itself
    placement                                      where processes with a model run
    scoring | tables                               models; files
    levels                                         what cascades share, offline and online
    config_problems | fusion | ranking             what is wrong with a config; lists to one; scores to ranks
    ray_folder                                     where a Ray that is started here works
    standard_streams | temporary_folder            what is printed; what lies on this disk for a while
    errors | log | labels | interruption | registry
    plain_file | redaction                         files alone are opened; URLs without secrets
"""
