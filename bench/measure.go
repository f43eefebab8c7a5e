//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/keywright/keywright"
)

// cpu is the time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// each calls f n times, from width goroutines.
func each(n, width int, f func() error) error {
	var work sync.WaitGroup
	errs := make(chan error, width)
	for range width {
		work.Go(func() {
			for range n / width {
				if err := f(); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	work.Wait()
	close(errs)
	return <-errs
}

// ratio runs two loads by turns and compares what they cost: the median, over
// the rounds, of how many times b the load a takes.
func ratio(rounds int, cost func(func() error) (time.Duration, error), a, b func() error) (float64, error) {
	var rs []float64
	for i := range rounds + 1 {
		first, second := a, b
		if i%2 == 1 {
			first, second = b, a
		}
		x, err := cost(first)
		if err != nil {
			return 0, err
		}
		y, err := cost(second)
		if err != nil {
			return 0, err
		}
		if i%2 == 1 {
			x, y = y, x
		}
		if i > 0 { // the first round warms up
			rs = append(rs, float64(x)/float64(y))
		}
	}
	slices.Sort(rs)
	return rs[len(rs)/2], nil
}

func cpuCost(f func() error) (time.Duration, error) {
	runtime.GC()
	start := cpu()
	err := f()
	return cpu() - start, err
}

func wallCost(f func() error) (time.Duration, error) {
	start := time.Now()
	err := f()
	return time.Since(start), err
}

// allocations returns the allocations and bytes of one call of f.
func allocations(n int, f func() error) (objects, bytes float64, err error) {
	if err := each(50, 1, f); err != nil {
		return 0, 0, err
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err = each(n, 1, f)
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(n), float64(after.TotalAlloc-before.TotalAlloc) / float64(n), err
}

// connections returns how many connections the server has seen since the last
// time.
func connections(url string) (n int, err error) {
	t := &http.Transport{DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url+"/connections", nil)
	if err != nil {
		return 0, err
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	err = json.NewDecoder(resp.Body).Decode(&n)
	return n - 1, err // this one
}

// connectionsOf returns how many connections n calls of a new client make, at
// width.
func connectionsOf(url string, n, width int, call func(*sdk) error) (int, error) {
	s, err := newSDK(url)
	if err != nil {
		return 0, err
	}
	defer s.rc.CloseIdleConnections()
	if _, err := connections(url); err != nil {
		return 0, err
	}
	if err := each(n, width, func() error { return call(s) }); err != nil {
		return 0, err
	}
	return connections(url)
}

// failing is a call of which one in a hundred fails, with no retries left.
func failing(s *sdk) error {
	_, err := s.rc.Key.Retrieve(context.Background(), 2, keywright.WithRetry(keywright.RetryPolicy{MaxAttempts: 1}))
	if errors.Is(err, keywright.ErrServer) {
		return nil
	}
	return err
}

// programs are two programs that differ in what they import.
var programs = map[string]string{
	"floor": `package main

import ("encoding/json"; "io"; "net/http"; "os")

func main() {
	if len(os.Args) < 2 { return }
	r, err := http.Get(os.Args[1])
	if err != nil { os.Exit(1) }
	b, _ := io.ReadAll(r.Body)
	var v struct{ Token string }
	if json.Unmarshal(b, &v) != nil { os.Exit(1) }
}
`,
	"sdk": `package main

import ("context"; "os"; "github.com/keywright/keywright")

func main() {
	if len(os.Args) < 2 { return }
	rc, err := keywright.NewRicloud()
	if err != nil { os.Exit(1) }
	if _, err := rc.Key.Current(context.Background()); err != nil { os.Exit(1) }
}
`,
}

// program is one of them, built.
type program struct {
	binary  string
	size    int64
	modules []string
	cold    time.Duration // CPU of a build with an empty cache, 0 if not asked for
}

// build builds both programs in a module of their own, outside of this one.
func build(dir, root string, cold bool) (map[string]program, error) {
	out := make(map[string]program)
	for name, source := range programs {
		folder := filepath.Join(dir, name)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, err
		}
		mod := "module example.com/" + name + "\n\ngo 1.25.0\n"
		if name == "sdk" {
			mod += "\nrequire github.com/keywright/keywright v0.0.0\n\nreplace github.com/keywright/keywright => " + root + "\n"
		}
		for file, content := range map[string]string{"go.mod": mod, "main.go": source} {
			if err := os.WriteFile(filepath.Join(folder, file), []byte(content), 0o600); err != nil {
				return nil, err
			}
		}
		run := func(env []string, args ...string) (*exec.Cmd, string, error) {
			cmd := exec.Command("go", args...)
			cmd.Dir, cmd.Env = folder, append(os.Environ(), env...)
			b, err := cmd.CombinedOutput()
			if err != nil {
				err = fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, b)
			}
			return cmd, string(b), err
		}
		if _, _, err := run(nil, "mod", "tidy"); err != nil {
			return nil, err
		}
		p := program{binary: filepath.Join(folder, "program")}
		if _, _, err := run(nil, "build", "-trimpath", "-ldflags=-s -w", "-o", p.binary, "."); err != nil {
			return nil, err
		}
		info, err := os.Stat(p.binary)
		if err != nil {
			return nil, err
		}
		p.size = info.Size()
		_, list, err := run(nil, "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", ".")
		if err != nil {
			return nil, err
		}
		p.modules = slices.Compact(slices.Sorted(slices.Values(strings.Fields(list))))
		if cold {
			cmd, _, err := run([]string{"GOCACHE=" + filepath.Join(dir, "cache-"+name)}, "build", "-o", p.binary+".cold", ".")
			if err != nil {
				return nil, err
			}
			p.cold = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		}
		out[name] = p
	}
	return out, nil
}

// peak iterates over n items in a process of its own and returns the most
// memory it had, in bytes.
func peak(url string, n int) (int64, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), iterateVariable+"="+fmt.Sprint(n), "KEYWRIGHT_BENCH_URL="+url)
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("iterating: %w", err)
	}
	var kb int64
	_, err = fmt.Sscan(string(out), &kb)
	return kb << 10, err
}

const iterateVariable = "KEYWRIGHT_BENCH_ITERATE"

// iterateAndReport is the process that peak starts.
func iterateAndReport(url string, n int) error {
	s, err := newSDK(url)
	if err != nil {
		return err
	}
	if err := s.iterate(context.Background(), n); err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.SplitSeq(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			fmt.Println(strings.Fields(rest)[0])
		}
	}
	return nil
}

func spawn(binary string) error { return exec.Command(binary).Run() }
