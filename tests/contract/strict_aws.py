"""A proxy before a moto server, with what the real Auto Scaling API does and moto does not.

- SetDesiredCapacity above MaxSize or below MinSize: ValidationError (moto accepts both).
- TerminateInstanceInAutoScalingGroup with decrement at MinSize: ValidationError (moto goes below).
- An unknown instance: ValidationError "Instance Id not found" (moto answers 500).
- Instances are Pending first and InService later, Terminating first and gone later (moto: at once).
"""

from __future__ import annotations

import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import boto3

SECRET = "s3cr3t-t0ken"
"""Of the credentials that it is asked with."""


class StrictAws:
    def __init__(self, moto: str) -> None:
        self.moto = moto
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        self.client: Any = boto3.client("autoscaling", region_name="eu-west-1", endpoint_url=moto, **keys)
        self.ec2: Any = boto3.client("ec2", region_name="eu-west-1", endpoint_url=moto, **keys)
        self.subnet = ""
        self.running: set[str] = set()
        self.terminating: dict[str, str] = {}
        self.fault: Callable[[str], int | None] = lambda _: None
        self.ending: Callable[[str], None] = lambda _: None
        """Told of an instance before it is terminated."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # one packet for each answer: two would wait for one another

            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "content-length")}
                status, data = proxy.serve(body, headers)
                if status == 0:
                    self.close_connection = True
                    self.connection.close()
                    return
                self.send_response(status)
                self.send_header("Content-Type", "text/xml")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def reset(self) -> None:
        """Begin anew. Deleting the group would not do: unlike AWS, moto keeps its scaling policies for the next one."""
        self.fault, self.ending = (lambda _: None), (lambda _: None)
        self.running.clear()
        self.terminating.clear()
        with urllib.request.urlopen(urllib.request.Request(f"{self.moto}/moto-api/reset", method="POST"), timeout=10):
            pass
        self.subnet = self.ec2.describe_subnets()["Subnets"][0]["SubnetId"]
        self.client.create_launch_configuration(
            LaunchConfigurationName="launch", ImageId="ami-12c6146b", InstanceType="m5.large"
        )

    def group(self, name: str, size: int, minimum: int, maximum: int) -> None:
        self.client.create_auto_scaling_group(
            AutoScalingGroupName=name,
            LaunchConfigurationName="launch",
            MinSize=minimum,
            MaxSize=maximum,
            DesiredCapacity=size,
            VPCZoneIdentifier=self.subnet,
        )
        self.settle()

    def tag(self, group: str, key: str, value: str) -> None:
        tag = {"ResourceId": group, "ResourceType": "auto-scaling-group", "Key": key, "Value": value}
        self.client.create_or_update_tags(Tags=[{**tag, "PropagateAtLaunch": False}])

    def settle(self) -> None:
        self.running = {i["InstanceId"] for i in self.found()["Instances"]}
        self.terminating.clear()

    def found(self) -> Any:
        return self.client.describe_auto_scaling_groups(AutoScalingGroupNames=["asg"])["AutoScalingGroups"][0]

    def serve(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        asked = {key: values[0] for key, values in parse_qs(body.decode()).items()}
        action = asked["Action"]
        answer = self.fault(action)
        if answer:
            return answer, _error("ServiceUnavailable", "a fault was asked for")
        refusal = self._refusal(action, asked)
        if refusal:
            return 400, _error("ValidationError", refusal)
        instance = asked.get("InstanceId", "")
        record = "" if action != "TerminateInstanceInAutoScalingGroup" else instance
        if record:
            self.ending(record)
        status, data = self._forward(body, headers)
        if record and status < 400:
            self.terminating[record] = "asg"
        if action == "DescribeAutoScalingGroups":
            data = self._lifecycle(data.decode()).encode()
        return (0, b"") if answer == 0 else (status, data)

    def _refusal(self, action: str, asked: dict[str, str]) -> str:
        if action == "SetDesiredCapacity":
            group, size = self.found(), int(asked["DesiredCapacity"])
            if size > group["MaxSize"]:
                return f"New SetDesiredCapacity value {size} is above max value {group['MaxSize']} for the group."
            if size < group["MinSize"]:
                return f"New SetDesiredCapacity value {size} is below min value {group['MinSize']} for the group."
        if action == "TerminateInstanceInAutoScalingGroup":
            group = self.found()
            if asked["InstanceId"] not in {i["InstanceId"] for i in group["Instances"]}:
                return f"Instance Id not found - No managed instance found for instance ID: {asked['InstanceId']}"
            if asked["ShouldDecrementDesiredCapacity"] == "true" and group["DesiredCapacity"] <= group["MinSize"]:
                return (
                    "Currently, desiredSize equals minSize. Terminating instance without replacement will violate it."
                )
        return ""

    def _lifecycle(self, text: str) -> str:
        def state(found: re.Match[str]) -> str:
            member = found[0]
            running = re.search(r"<InstanceId>([^<]+)</InstanceId>", member)
            if running and running[1] not in self.running:
                member = member.replace(">InService<", ">Pending<")
            return member

        text = re.sub(r"<member>\s*(?:(?!</member>).)*?<InstanceId>.*?</member>", state, text, flags=re.DOTALL)
        going = "".join(
            f"<member><InstanceId>{name}</InstanceId><LifecycleState>Terminating</LifecycleState>"
            "<AvailabilityZone>eu-west-1a</AvailabilityZone><HealthStatus>Healthy</HealthStatus>"
            "<ProtectedFromScaleIn>false</ProtectedFromScaleIn></member>"
            for name in self.terminating
        )
        if "<Instances>" in text:
            return text.replace("</Instances>", f"{going}</Instances>")
        return re.sub(r"<Instances ?/>", f"<Instances>{going}</Instances>", text)

    def _forward(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        request = urllib.request.Request(self.moto, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as found:
                return found.status, found.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


def _error(code: str, message: str) -> bytes:
    return (
        '<ErrorResponse xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/"><Error><Type>Sender</Type>'
        f"<Code>{code}</Code><Message>{message}</Message></Error><RequestId>0</RequestId></ErrorResponse>"
    ).encode()
