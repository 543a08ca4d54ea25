"""What `/ready` tells of a deploy; tests/serve/test_app.py sees it on Ray."""

from ray.serve.schema import ApplicationStatus

from serve.rollout import reason_told, rollout_told


def test_a_rollout_is_told_until_all_of_it_runs() -> None:
    messages = ["", "1 replica takes long:\n  Resources required: {'GPU': 1}.", ""]
    assert rollout_told(ApplicationStatus.DEPLOYING, messages) == (
        "DEPLOYING: 1 replica takes long: Resources required: {'GPU': 1}."
    )
    assert rollout_told(ApplicationStatus.DEPLOYING, [""]) == "DEPLOYING"
    assert rollout_told(ApplicationStatus.DEPLOY_FAILED, ["Failed\nat x"]) == "DEPLOY_FAILED: Failed"
    assert rollout_told(ApplicationStatus.RUNNING, ["all is well"]) == ""


def test_what_is_told_of_a_failed_rollout_is_the_error_without_its_stack() -> None:
    stack = "Traceback:\n  File x\npipeline.errors.ModelError: /models/v3: no such directory\n"
    assert (
        reason_told(["Failed to update the deployments ['tiny'].", "", stack])
        == "/models/v3: no such directory"
    )
    chained = (
        "pipeline.errors.ModelError: first\n\nThe above exception was the direct cause of the following"
        " exception:\n\nTraceback:\n  File x\npipeline.errors.ConfigError: args.a: no\nargs.b: neither\n"
    )
    assert reason_told([chained]) == "args.a: no; args.b: neither"
    assert reason_told([chained + "\nTraceback: secrets"]) == "args.a: no; args.b: neither"
    assert reason_told(["Failed to update\nTraceback: secrets", ""]) == "Failed to update"
    assert reason_told(["", ""]) == "no reason is known"
