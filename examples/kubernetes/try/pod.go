//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// api is what a pod needs of an API server.
type api interface {
	address() (host, port string)
	ca() []byte
	accountToken() string
	secret(name string) (map[string]string, error)
}

// node runs pods as a kubelet does, but in directories in place of containers:
// each container is a process with a root of its own, in which there is nothing
// but the program and what is mounted, and whose only user is the one that the
// manifest names.
type node struct {
	dir     string // of the containers' roots, and of what is on the volumes
	program string // keywright, without libraries
	api     api
	m       *manifests
	log     io.Writer

	// started, if not nil, is called with each process of the container.
	started func(*os.Process)
	// finished, if not nil, is called when the containers are done, and the
	// sidecars still run.
	finished func()
}

const accountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

func (n *node) spec() *podSpec { return &n.m.CronJob.Spec.JobTemplate.Spec.Template.Spec }

// job runs pods until one succeeds, or the job fails, as the CronJob says. It
// returns the exit codes of all.
func (n *node) job(ctx context.Context) (codes []int, err error) {
	spec := &n.m.CronJob.Spec.JobTemplate.Spec
	for failures := 0; failures <= spec.BackoffLimit; failures++ {
		code, err := n.pod(ctx)
		if err != nil {
			return codes, err
		}
		codes = append(codes, code)
		if code == 0 {
			return codes, nil
		}
		if spec.fails(n.spec().Containers[0].Name, code) {
			return codes, fmt.Errorf("exit code %d fails the job", code)
		}
	}
	return codes, errors.New("the job has failed too often")
}

// fails reports whether an exit code ends the job.
func (s *jobSpec) fails(name string, code int) bool {
	for _, rule := range s.PodFailurePolicy.Rules {
		if on := rule.OnExitCodes; on != nil && on.ContainerName == name && slices.Contains(on.Values, code) == (on.Operator == "In") {
			return rule.Action == "FailJob"
		}
	}
	return false
}

// pod runs one pod, and returns the exit code of its container.
func (n *node) pod(ctx context.Context) (code int, err error) {
	ctx, stop := context.WithCancel(ctx)
	var sidecars []*exec.Cmd
	defer func() {
		stop()
		for _, c := range sidecars {
			_ = c.Wait() // it was told to go
		}
	}()
	for i := range n.spec().InitContainers {
		c := &n.spec().InitContainers[i]
		if c.RestartPolicy != "Always" {
			return 0, fmt.Errorf("container %s is no sidecar", c.Name)
		}
		cmd, err := n.command(ctx, c, slices.Concat(c.Command, c.Args))
		if err != nil {
			return 0, err
		}
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		sidecars = append(sidecars, cmd)
		if err := n.probe(ctx, c); err != nil {
			return 0, err
		}
	}
	c := &n.spec().Containers[0]
	cmd, err := n.command(ctx, c, slices.Concat(c.Command, c.Args))
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	if n.started != nil {
		n.started(cmd.Process)
	}
	err = cmd.Wait()
	if n.finished != nil {
		n.finished()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if w, ok := exit.Sys().(syscall.WaitStatus); ok && w.Signaled() {
			return 128 + int(w.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	return 0, err
}

// probe waits until a sidecar has started.
func (n *node) probe(ctx context.Context, c *container) error {
	p := c.StartupProbe
	if p == nil {
		return nil
	}
	for range p.FailureThreshold {
		cmd, err := n.command(ctx, c, p.Exec.Command[1:])
		if err != nil {
			return err
		}
		cmd.Stdout, cmd.Stderr = nil, nil
		if cmd.Run() == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(p.PeriodSeconds) * time.Second / 5):
		}
	}
	return fmt.Errorf("container %s does not start", c.Name)
}

// command returns a process of a container, with the image's entry point.
func (n *node) command(ctx context.Context, c *container, args []string) (*exec.Cmd, error) {
	root := filepath.Join(n.dir, c.Name)
	if err := n.mount(root, c); err != nil {
		return nil, err
	}
	const program = "/usr/local/bin/keywright"
	host, port := n.api.address()
	env := []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/home/nonroot", "HOSTNAME=keywright-0"}
	if n.spec().AutomountServiceAccountToken {
		env = append(env, "KUBERNETES_SERVICE_HOST="+host, "KUBERNETES_SERVICE_PORT="+port)
	}
	for _, e := range c.Env {
		value := e.Value
		if ref := e.ValueFrom.SecretKeyRef; ref.Name != "" {
			data, err := n.api.secret(ref.Name)
			if err != nil {
				return nil, err
			}
			value = data[ref.Key]
		}
		env = append(env, e.Name+"="+value)
		args = slices.Clone(args)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "$("+e.Name+")", value)
		}
	}
	s := n.spec().SecurityContext
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = "/", env
	log := &lines{w: n.log, prefix: c.Name + ": "}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Duration(n.spec().TerminationGracePeriodSeconds) * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Chroot:      root,
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: s.RunAsUser, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: s.RunAsGroup, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	return cmd, nil
}

// mount makes the root of a container. What is not mounted to be written cannot
// be written.
func (n *node) mount(root string, c *container) error {
	if err := n.setModes(root, 0o755); err != nil {
		return err
	}
	program := filepath.Join(root, "usr/local/bin/keywright")
	if _, err := os.Stat(program); err != nil {
		if err := copyFile(program, n.program); err != nil {
			return err
		}
	}
	if n.spec().AutomountServiceAccountToken {
		files := map[string]string{"ca.crt": string(n.api.ca()), "token": n.api.accountToken(), "namespace": n.m.CronJob.Metadata.Namespace}
		if err := project(filepath.Join(root, accountDir), files, 0o640); err != nil {
			return err
		}
	}
	for _, m := range c.VolumeMounts {
		i := slices.IndexFunc(n.spec().Volumes, func(v volume) bool { return v.Name == m.Name })
		if i < 0 {
			return fmt.Errorf("there is no volume %s", m.Name)
		}
		if err := n.volume(filepath.Join(root, m.MountPath), &n.spec().Volumes[i]); err != nil {
			return err
		}
	}
	if !c.SecurityContext.ReadOnlyRootFilesystem {
		return nil
	}
	return n.setModes(root, 0o555)
}

// setModes sets the modes of the directories in the root of a container, but
// for those of a volume that is kept.
func (n *node) setModes(root string, mode fs.FileMode) error {
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		for _, c := range n.spec().Containers {
			for _, m := range c.VolumeMounts {
				if !m.ReadOnly && path == filepath.Join(root, m.MountPath) {
					return fs.SkipDir
				}
			}
		}
		return os.Chmod(path, mode)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// remove removes the roots of all containers.
func (n *node) remove() error {
	for _, c := range slices.Concat(n.spec().InitContainers, n.spec().Containers) {
		if err := n.setModes(filepath.Join(n.dir, c.Name), 0o755); err != nil {
			return err
		}
	}
	return os.RemoveAll(n.dir)
}

func (n *node) volume(path string, v *volume) error {
	switch {
	case v.ConfigMap != nil:
		data, ok := n.m.Configs[v.ConfigMap.Name]
		if !ok {
			return fmt.Errorf("there is no ConfigMap %s", v.ConfigMap.Name)
		}
		return project(path, data, 0o644)
	case v.Secret != nil:
		data, err := n.api.secret(v.Secret.SecretName)
		if err != nil {
			return err
		}
		files := make(map[string]string)
		for _, item := range v.Secret.Items {
			files[item.Path] = data[item.Key]
		}
		return project(path, files, fs.FileMode(v.Secret.DefaultMode))
	case v.PersistentVolumeClaim != nil:
		return n.persistent(path)
	}
	return fmt.Errorf("volume %s is of no kind that is known", v.Name)
}

// persistent mounts what is kept from pod to pod, and opens it to the group, as
// fsGroup says.
func (n *node) persistent(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
	case err != nil:
		return err
	case n.spec().SecurityContext.FSGroupChangePolicy == "OnRootMismatch" && uint32(info.Mode().Perm())&0o060 == 0o060 && info.Mode()&fs.ModeSetgid != 0:
		return nil // it is as it has to be, and with it, they say, all that is in it
	}
	return filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := info.Mode().Perm() | 0o060
		if d.IsDir() {
			mode |= fs.ModeSetgid | 0o010
		}
		return os.Chmod(p, mode)
	})
}

// project makes a volume of files as a kubelet does: links to files in a
// directory, which a link replaces as a whole.
func project(path string, files map[string]string, mode fs.FileMode) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	version, err := os.MkdirTemp(path, "..")
	if err != nil {
		return err
	}
	if err := os.Chmod(version, 0o755); err != nil {
		return err
	}
	for name, content := range files {
		file := filepath.Join(version, name)
		if err := os.WriteFile(file, []byte(content), mode); err != nil {
			return err
		}
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(path, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	data := filepath.Join(path, "..data")
	old, _ := os.Readlink(data) // there is none the first time
	next := filepath.Join(path, "..next")
	if err := os.Symlink(filepath.Base(version), next); err != nil {
		return err
	}
	if err := os.Rename(next, data); err != nil || old == "" {
		return err
	}
	return os.RemoveAll(filepath.Join(path, old))
}

// copyFile copies a program.
func copyFile(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

// lines writes lines with a prefix.
type lines struct {
	w      io.Writer
	prefix string
	rest   []byte
}

// Write writes the lines that are complete.
func (l *lines) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 {
			return len(b), nil
		}
		if _, err := fmt.Fprintf(l.w, "  %s%s\n", l.prefix, l.rest[:i]); err != nil {
			return 0, err
		}
		l.rest = l.rest[i+1:]
	}
}
