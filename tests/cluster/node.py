"""containerd and the kubelet: the one node of the cluster, with real containers."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from . import image
from .component import Component, accepts
from .machine import PATH, find_program
from .run import NODE

if TYPE_CHECKING:
    from pathlib import Path

    from .api import Api
    from .pki import Authority
    from .run import Plan, Run

#: Folders and what is hidden behind an empty file system of the node's own. These paths are fixed in containerd, its
#: shim, the network library and the kubelet; without, two nodes on a machine would meet there, and leave things behind.
PRIVATE_FOLDERS = (
    "/run/containerd",
    "/run/netns",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/containers",
)

#: Kernel settings that the kubelet (`setupKernelTunables`) or the bridge plugin would change for the whole machine,
#: with the value each wants to see. Inside the node a plain file stands in their place, and the machine's stay.
KERNEL_SETTINGS = {
    "/proc/sys/vm/overcommit_memory": "1",
    "/proc/sys/vm/panic_on_oom": "0",
    "/proc/sys/kernel/panic": "10",
    "/proc/sys/kernel/panic_on_oops": "1",
    "/proc/sys/kernel/keys/root_maxkeys": "1000000",
    "/proc/sys/kernel/keys/root_maxbytes": "25000000",
    "/proc/sys/net/ipv4/ip_forward": "1",
}


def hide_machine(run: Run) -> None:
    """Gives this mount namespace copies of its own of what a node would share with the machine, or change there."""
    folder = run.folder / "kernel"
    folder.mkdir()
    for path in PRIVATE_FOLDERS:
        _call("mkdir", "-p", path)
        _call("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", path)
    for path, value in KERNEL_SETTINGS.items():
        stand_in = folder / path.replace("/", "_")
        stand_in.write_text(value + "\n")
        _call("mount", "--bind", str(stand_in), path)


def issue_certificates(plan: Plan, authority: Authority) -> None:
    """Makes the kubelet's identity, as client and as server of logs."""
    hosts = (f"DNS:{NODE}", f"IP:{plan.gateway}")
    authority.issue(f"system:node:{NODE}", groups=("system:nodes",), hosts=hosts, file="kubelet")
    authority.kubeconfig(f"system:node:{NODE}", server=plan.server, groups=("system:nodes",), file="kubelet-client")


def containerd(run: Run, plan: Plan) -> Component:
    """The container runtime, with root, state and socket of its own."""
    _write_containerd_configuration(run, plan)
    _write_network_configuration(run, plan)

    command = [find_program("containerd"), f"--config={run.folder / 'containerd.toml'}"]
    return Component(
        "containerd",
        command,
        run.logs / "containerd.log",
        lambda: accepts(containerd_socket(run)),
        # Port 1 refuses at once, so an image that was not imported fails to pull at once, with or without a network.
        environment={"HTTPS_PROXY": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"},
    )


def ctr(run: Run) -> list[str]:
    """The beginning of a command that talks to this containerd about Kubernetes' containers."""
    return [find_program("ctr"), f"--address={containerd_socket(run)}", "--namespace=k8s.io"]


def containerd_socket(run: Run) -> Path:
    """Where containerd listens."""
    return run.folder / "containerd.sock"


def pod_logs(run: Run) -> Path:
    """Where the kubelet keeps the pods' logs, in place of /var/log/pods."""
    return run.folder / "pods"


def import_images(run: Run) -> None:
    """Gives containerd the images of the tests."""
    archive = run.folder / "images.tar"
    image.write_test_images(archive)
    _call(*ctr(run), "images", "import", str(archive))


def kubelet(run: Run, plan: Plan, authority: Authority, api: Api) -> Component:
    """The node's agent."""
    (run.folder / "kubelet.json").write_text(json.dumps(_kubelet_configuration(run, plan, authority), indent=1))
    command = [
        *(plan.program, "kubelet", f"--config={run.folder / 'kubelet.json'}"),
        f"--kubeconfig={run.pki / 'kubelet-client.kubeconfig'}",
        # The bridge's address: a node's may not be loopback, and a fixed one spares the kubelet a look-up of its name.
        *(f"--hostname-override={NODE}", f"--node-ip={plan.gateway}"),
        f"--root-dir={run.folder / 'kubelet'}",
    ]
    return Component("kubelet", command, run.logs / "kubelet.log", lambda: api.is_node_ready(NODE))


def _kubelet_configuration(run: Run, plan: Plan, authority: Authority) -> dict[str, Any]:
    serving = authority.client("kubelet")
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": plan.gateway,
        "port": plan.kubelet_port,
        "healthzPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(authority.root.certificate)},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "tlsCertFile": str(serving.certificate),
        "tlsPrivateKeyFile": str(serving.key),
        "containerRuntimeEndpoint": f"unix://{containerd_socket(run)}",
        # Both versions of cgroups, without systemd, below a root that bears the run's name.
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{run.cgroup}",
        "cgroupsPerQOS": True,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        # Would write rules into the machine's firewall.
        "makeIPTablesUtilChains": False,
        # Needs a file system whose size cAdvisor can tell, which a container's root often is not.
        "localStorageCapacityIsolation": False,
        "containerLogMaxSize": plan.settings.log_max_size,
        "containerLogMaxFiles": plan.settings.log_max_files,
        "containerLogMonitorInterval": plan.settings.log_monitor_interval,
        "podLogsDir": str(pod_logs(run)),
        "maxPods": plan.settings.max_pods,
        "registryPullQPS": 0,
        # Images come from nowhere but `import_images`, so none may be collected; a full disk is no reason to evict.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "50Mi"},
        # Nobody answers there; named, because the kubelet else warns about it with an event on every pod.
        "clusterDNS": ["10.96.0.10"],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "volumePluginDir": str(run.folder / "volume-plugins"),
        # Lowering it needs a capability that root in a sandbox may lack.
        "oomScoreAdj": 0,
    }


def _write_containerd_configuration(run: Run, plan: Plan) -> None:
    snapshotter = "overlayfs" if _can_overlay(run) else "native"
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    text = f"""\
version = 2
root = "{run.folder}/containerd/root"
state = "{run.folder}/containerd/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs"]

[grpc]
  address = "{containerd_socket(run)}"

[{cri}]
  sandbox_image = "{image.PAUSE}"
  # Where root lacks CAP_SYS_RESOURCE, runc cannot lower oom_score_adj and no sandbox would start.
  restrict_oom_score_adj = true

[{cri}.containerd]
  snapshotter = "{snapshotter}"
  default_runtime_name = "runc"

[{cri}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[{cri}.containerd.runtimes.runc.options]
  SystemdCgroup = false

[{cri}.cni]
  bin_dir = "{plan.plugins}"
  conf_dir = "{run.folder}/cni"
"""
    _write(run.folder / "containerd.toml", text)


def _write_network_configuration(run: Run, plan: Plan) -> None:
    bridge = {
        "type": "bridge",
        "bridge": run.bridge,
        "isGateway": True,
        "isDefaultGateway": True,
        # Pods reach each other and this machine, nothing further.
        "ipMasq": False,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": plan.pod_subnet}]],
            "dataDir": str(run.folder / "addresses"),
        },
    }
    configuration = {"cniVersion": "0.4.0", "name": run.name, "plugins": [bridge]}
    _write(run.folder / "cni" / "pods.conflist", json.dumps(configuration))


def _can_overlay(run: Run) -> bool:
    """Whether the folder's file system can be the upper layer of an overlay; one that is an overlay itself cannot."""
    trial = run.folder / "overlay-trial"
    folders = {name: trial / name for name in ("lower", "upper", "work", "merged")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    options = f"lowerdir={folders['lower']},upperdir={folders['upper']},workdir={folders['work']}"
    mount = ["mount", "-t", "overlay", "-o", options, "overlay", str(folders["merged"])]
    done = subprocess.run(mount, env={"PATH": PATH}, capture_output=True, check=False)
    if done.returncode == 0:
        _call("umount", str(folders["merged"]))
    return done.returncode == 0


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _call(*command: str) -> None:
    # Failure is a bug or a machine unlike any known one: the output says more than a sentence here could.
    done = subprocess.run(command, env={"PATH": PATH}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
