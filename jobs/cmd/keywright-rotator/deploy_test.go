//go:build unix

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/rotation/jobfile"
)

// flagsOf are the flags that the program has.
func flagsOf(t *testing.T, w *world) []string {
	t.Helper()
	code, out, _ := w.run("--help")
	require.Zero(t, code)
	var flags []string
	for _, match := range regexp.MustCompile(`(?m)^ +(?:-., )?(--[a-z-]+)`).FindAllStringSubmatch(out, -1) {
		flags = append(flags, match[1])
	}
	require.Contains(t, flags, "--config")
	return flags
}

// given are the flags of a command line with their values.
func given(t *testing.T, args []string) map[string]string {
	t.Helper()
	flags := make(map[string]string)
	for i := 0; i < len(args); i++ {
		require.True(t, strings.HasPrefix(args[i], "--"), args[i])
		name, value, joined := strings.Cut(args[i], "=")
		if !joined {
			i++
			value = args[i]
		}
		flags[name] = value
	}
	return flags
}

// duration is a value that is a time.
func duration(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	require.NoError(t, err)
	return d
}

// The unit is one, and gives flags that there are, and more time than they do.
func TestUnit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	b, err := os.ReadFile("deploy/keywright-rotator.service")
	require.NoError(t, err)
	unit := string(b)
	setting := func(name string) string {
		match := regexp.MustCompile(`(?m)^` + name + `=((?:.*\\\n)*.*)$`).FindStringSubmatch(unit)
		require.NotNil(t, match, name)
		return strings.ReplaceAll(match[1], "\\\n", " ")
	}
	command := strings.Fields(setting("ExecStart"))
	require.Equal(t, "/usr/local/bin/keywright-rotator", command[0])
	flags := given(t, command[1:])
	for name := range flags {
		assert.Contains(t, flagsOf(t, w), name)
	}
	assert.Contains(t, flagsOf(t, w), regexp.MustCompile(`--database-file`).FindString(unit), "of the remarks")
	require.Equal(t, "/var/lib/"+setting("StateDirectory")+"/keywright.db", flags["--database"])
	credential, _, _ := strings.Cut(setting("LoadCredential"), ":")
	require.Equal(t, "${CREDENTIALS_DIRECTORY}/"+credential, flags["--token-file"])
	require.Greater(t, duration(t, setting("TimeoutStopSec")), 2*duration(t, flags["--grace"]))
	require.Equal(t, "0700", setting("StateDirectoryMode"))
	require.Equal(t, "strict", setting("ProtectSystem"))
	require.Equal(t, "on-failure", setting("Restart"))
	require.Contains(t, setting("ExecReload"), "-HUP $MAINPID")

	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("left out: systemd-analyze is not in PATH")
	}
	file := filepath.Join(t.TempDir(), "keywright-rotator.service")
	require.NoError(t, os.WriteFile(file, []byte(strings.Replace(unit, "ExecStart=/usr/local/bin/keywright-rotator", "ExecStart="+program, 1)), 0o600))
	said, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", file).CombinedOutput()
	assert.NoError(t, err, string(said))
	assert.NotContains(t, string(said), "keywright-rotator")
	said, err = exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=yes", "--threshold=25", file).CombinedOutput()
	assert.NoError(t, err, string(said))
}

// manifest is what matters of one.
type manifest struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	Data     map[string]string
	Rules    []struct {
		ResourceNames []string `yaml:"resourceNames"`
		Verbs         []string
	}
	Spec struct {
		Replicas     int
		MinAvailable int `yaml:"minAvailable"`
		Selector     any
		PodSelector  struct {
			MatchLabels map[string]string `yaml:"matchLabels"`
		} `yaml:"podSelector"`
		Ports []struct {
			Port       int
			TargetPort string `yaml:"targetPort"`
		}
		Template struct {
			Metadata struct{ Labels map[string]string }
			Spec     pod
		}
	}
}

type pod struct {
	ServiceAccountName            string `yaml:"serviceAccountName"`
	TerminationGracePeriodSeconds int    `yaml:"terminationGracePeriodSeconds"`
	SecurityContext               struct {
		RunAsNonRoot   bool                  `yaml:"runAsNonRoot"`
		SeccompProfile struct{ Type string } `yaml:"seccompProfile"`
	} `yaml:"securityContext"`
	Containers []container
	Volumes    []struct {
		Name      string
		ConfigMap struct{ Name string } `yaml:"configMap"`
		Secret    struct {
			DefaultMode string `yaml:"defaultMode"`
			Items       []struct{ Path string }
		}
	}
}

type container struct {
	Args  []string
	Env   []variable
	Ports []struct {
		Name          string
		ContainerPort string `yaml:"containerPort"`
	}
	StartupProbe   probe `yaml:"startupProbe"`
	LivenessProbe  probe `yaml:"livenessProbe"`
	ReadinessProbe probe `yaml:"readinessProbe"`
	VolumeMounts   []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
		ReadOnly  bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
	SecurityContext struct {
		AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
		Capabilities             struct{ Drop []string }
	} `yaml:"securityContext"`
	Resources struct{ Limits map[string]string }
}

type variable struct {
	Name      string
	ValueFrom struct {
		SecretKeyRef struct{ Key string } `yaml:"secretKeyRef"`
	} `yaml:"valueFrom"`
}

type probe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
}

// The manifests fit each other and the program.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	b, err := os.ReadFile("deploy/kubernetes.yaml")
	require.NoError(t, err)
	all := make(map[string]manifest)
	for d := yaml.NewDecoder(bytes.NewReader(b)); ; {
		var m manifest
		if err := d.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else {
			require.NoError(t, err)
		}
		require.Equal(t, "keywright-rotator", m.Metadata.Name)
		require.Empty(t, m.Metadata.Namespace)
		all[m.Kind] = m
	}
	require.Len(t, all, 8)
	require.NotContains(t, all, "Secret", "it would be applied again and again")

	deployment := all["Deployment"]
	require.Equal(t, 2, deployment.Spec.Replicas)
	require.Equal(t, 1, all["PodDisruptionBudget"].Spec.MinAvailable)
	labels := deployment.Spec.Template.Metadata.Labels
	require.Equal(t, labels, all["NetworkPolicy"].Spec.PodSelector.MatchLabels)
	require.Equal(t, map[string]any{"app.kubernetes.io/name": labels["app.kubernetes.io/name"]}, all["Service"].Spec.Selector)

	p := deployment.Spec.Template.Spec
	require.Equal(t, "keywright-rotator", p.ServiceAccountName)
	c := p.Containers[0]
	flags := given(t, c.Args)
	for name := range flags {
		assert.Contains(t, flagsOf(t, w), name)
	}
	require.Greater(t, p.TerminationGracePeriodSeconds, 2*int(duration(t, flags["--grace"]).Seconds()))
	require.Equal(t, ":"+c.Ports[0].ContainerPort, flags["--listen"])
	require.Equal(t, c.Ports[0].Name, all["Service"].Spec.Ports[0].TargetPort)
	for path, probe := range map[string]probe{"/healthz": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		require.Equal(t, path, probe.HTTPGet.Path)
		require.Equal(t, c.Ports[0].Name, probe.HTTPGet.Port)
	}
	require.Equal(t, "/readyz", c.StartupProbe.HTTPGet.Path)

	// What the restricted standard for pods wants, and a little more.
	require.True(t, p.SecurityContext.RunAsNonRoot)
	require.Equal(t, "RuntimeDefault", p.SecurityContext.SeccompProfile.Type)
	require.NotNil(t, c.SecurityContext.AllowPrivilegeEscalation)
	require.False(t, *c.SecurityContext.AllowPrivilegeEscalation)
	require.True(t, c.SecurityContext.ReadOnlyRootFilesystem)
	require.Equal(t, []string{"ALL"}, c.SecurityContext.Capabilities.Drop)
	require.NotEmpty(t, c.Resources.Limits["memory"])

	// Each file that is named is mounted, and nobody else may read it.
	mounted := make(map[string]bool)
	for _, m := range c.VolumeMounts {
		require.True(t, m.ReadOnly)
		for _, v := range p.Volumes {
			if v.Name != m.Name {
				continue
			}
			if v.ConfigMap.Name != "" {
				require.Equal(t, all["ConfigMap"].Metadata.Name, v.ConfigMap.Name)
				for name := range all["ConfigMap"].Data {
					mounted[path.Join(m.MountPath, name)] = true
				}
				continue
			}
			require.Equal(t, "0440", v.Secret.DefaultMode)
			for _, item := range v.Secret.Items {
				mounted[path.Join(m.MountPath, item.Path)] = true
			}
		}
	}
	for _, flag := range []string{"--config", "--database-file", "--token-file"} {
		assert.Contains(t, mounted, flags[flag], flag)
	}

	// The file of the jobs is one that a worker on PostgreSQL takes.
	f, err := jobfile.Parse(flags["--config"], []byte(all["ConfigMap"].Data["keywright.yaml"]), jobs.FileOptions()...)
	require.NoError(t, err)
	require.True(t, f.InDatabase())
	require.Contains(t, mounted, f.Ricloud.TokenFile)
	require.True(t, slices.ContainsFunc(c.Env, func(v variable) bool {
		return v.Name == f.SealKey.Env && v.ValueFrom.SecretKeyRef.Key == "seal-key"
	}))
	sink := f.Jobs[0].Sinks[0]
	require.Equal(t, []string{sink.Name}, all["Role"].Rules[0].ResourceNames)
	require.Equal(t, []string{"get", "patch"}, all["Role"].Rules[0].Verbs)

	// The image is what the Dockerfile makes.
	b, err = os.ReadFile("deploy/Dockerfile")
	require.NoError(t, err)
	require.Contains(t, string(b), "\nUSER 65532:65532\n")
	require.Contains(t, string(b), "\nENTRYPOINT [\"/usr/local/bin/keywright-rotator\"]\n")
	require.Contains(t, string(b), "EXPOSE "+c.Ports[0].ContainerPort)
}

// The program needs nothing of the system: no library and no time zones.
func TestAlone(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("left out: only root gives a process a root of its own")
	}
	w := newWorld(t, 1)
	b, err := os.ReadFile(program)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(w.path("program"), b, 0o700))
	b, err = os.ReadFile(w.path("keywright.yaml"))
	require.NoError(t, err)
	w.write("keywright.yaml", strings.Replace(string(b), "{every: 30d}", "{every: 30d, timezone: Asia/Kathmandu}", 1))
	cmd := exec.CommandContext(t.Context(), "/program", "check", "--config", "/keywright.yaml", "--worker-id", "w1")
	cmd.Dir, cmd.Env = "/", []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: w.dir}
	said, err := cmd.CombinedOutput()
	require.NoError(t, err, string(said))
	require.Contains(t, string(said), "job-0")
}
