// Command cluster is every program of a one-node Kubernetes in one binary; the first argument names the program.
//
// It exists so that a test run needs no image registry and no prebuilt download: the Go module proxy alone gives a real
// API server, controller manager, scheduler, kubelet, kubectl and etcd, and the verifier of EKS tokens. One module and one link step share what they have
// in common, which is most of it.
package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// programs makes the command of each Kubernetes program. A command is built only when it is asked for: their flag sets
// and metric registries are process-wide, so two of them do not fit into one process.
var programs = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllers.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
	"kubectl":                 kubectl.NewDefaultKubectlCommand,
	"authenticator":           newAuthenticatorCommand,
}

func main() {
	if len(os.Args) < 2 {
		usage("no program named")
	}
	name := os.Args[1]
	if name == "etcd" {
		// etcd parses os.Args by itself and expects its own name first.
		etcdmain.Main(os.Args[1:])
		return
	}
	command, known := programs[name]
	if !known {
		usage(fmt.Sprintf("unknown program %q", name))
	}
	os.Args = os.Args[1:]
	os.Exit(cli.Run(command()))
}

func usage(problem string) {
	names := []string{"etcd"}
	for name := range programs {
		names = append(names, name)
	}
	slices.Sort(names)
	fmt.Fprintf(os.Stderr, "cluster: %s; usage: cluster %s [flags]\n", problem, strings.Join(names, "|"))
	os.Exit(2)
}
