package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// sessions runs the commands in a text's blocks "console", all in one shell, and
// adds what they print. dir has a directory bin for PATH.
func sessions(ctx context.Context, text, dir string) (string, error) {
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return "", err
	}
	sh, err := newShell(ctx, home, filepath.Join(dir, "bin"))
	if err != nil {
		return "", err
	}
	var (
		out     strings.Builder
		command string
		inside  bool
	)
	flush := func() error {
		if command == "" {
			return nil
		}
		printed, err := sh.run(command)
		command = ""
		out.WriteString(printed)
		return err
	}
	for line := range strings.Lines(text) {
		fence := strings.HasPrefix(line, "```")
		if inside && (fence || !strings.HasPrefix(line, "> ")) {
			if err := flush(); err != nil {
				return "", errors.Join(err, sh.close())
			}
		}
		switch {
		case fence:
			inside = !inside && strings.TrimSpace(line) == "```console"
		case inside && strings.HasPrefix(line, "# "):
			printed, err := sh.run(line[2:]) // by what runs in the background
			if err != nil {
				return "", errors.Join(err, sh.close())
			}
			out.WriteString(printed)
			continue
		case inside:
			command += line[2:]
		}
		out.WriteString(line)
	}
	steady := steadier{home: home, seen: make(map[string]string)}
	return steady.text(out.String()), sh.close()
}

// shell is a running shell whose output and errors are one stream.
type shell struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	cancel context.CancelFunc
}

func newShell(ctx context.Context, home, bin string) (*shell, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	context.AfterFunc(ctx, func() { _ = r.Close() }) // what the shell has started may hold the other end
	cmd := exec.CommandContext(ctx, "bash", "--noprofile", "--norc")
	cmd.Dir = home
	cmd.Env = []string{"HOME=" + home, "PATH=" + bin + string(os.PathListSeparator) + os.Getenv("PATH"), "LANG=C.UTF-8"}
	cmd.Stdout, cmd.Stderr = w, w
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err := errors.Join(err, w.Close()); err != nil {
		cancel()
		return nil, err
	}
	return &shell{cmd, in, bufio.NewReader(r), cancel}, nil
}

// over is what the shell prints behind the output of a command.
const over = "-- over --"

// run runs a command and returns what it prints. A command that fails is no
// error: that may be what is to be shown.
func (sh *shell) run(command string) (string, error) {
	// Standard input is the script: a command must not read it. The next one
	// finds this one's exit code.
	if _, err := fmt.Fprintf(sh.in, "{ %s\n} </dev/null\ncode=$?; printf '\\n%%s\\n' '%s'; (exit $code)\n", strings.TrimSuffix(command, "\n"), over); err != nil {
		return "", fmt.Errorf("%q: %w", command, err)
	}
	var b strings.Builder
	for {
		line, err := sh.out.ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("%q: %w after %q", command, err, b.String())
		}
		if line == over+"\n" {
			return strings.TrimSuffix(b.String(), "\n"), nil
		}
		b.WriteString(line)
	}
}

// close ends the shell and what it has left running.
func (sh *shell) close() error {
	defer sh.cancel()
	_, err := io.WriteString(sh.in, "kill $(jobs -p) 2>/dev/null; wait; exit 0\n")
	return errors.Join(err, sh.in.Close(), sh.cmd.Wait())
}

// steadier replaces what differs from run to run by something of the same
// length, so that tables stay aligned; what is the same stays the same.
type steadier struct {
	home string
	seen map[string]string
}

// changing is what differs, and what the nth of each, from 0, is replaced by.
var changing = []struct {
	what *regexp.Regexp
	nth  func(n int) string
}{
	{regexp.MustCompile(`20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), func(int) string { return "2027-01-31T09:00:00Z" }},
	{regexp.MustCompile(`waiting \ds`), func(int) string { return "waiting 2s" }}, // it is what is left
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), func(n int) string { return fmt.Sprintf("127.0.0.1:%d", 40080+n) }},
	{regexp.MustCompile(`\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`), func(n int) string { return fmt.Sprintf("%08x-1f2e-4d3c-8b5a-69780a1b2c3d", 0x3f9a41c0+n) }},
	{regexp.MustCompile(`\b[0-9A-Za-z]{64}\b`), func(int) string { return strings.Repeat("0123456789abcdef", 4) }}, // a token
	{regexp.MustCompile(`\b[0-9a-f]{16}\b`), func(n int) string { return fmt.Sprintf("%016x", 0x5ca1ab1e0ddba110+n) }},
	{regexp.MustCompile(`\b[0-9a-f]{12}\b`), func(n int) string { return fmt.Sprintf("%012x", 0xc0ffee15a9e0+n*0x1357) }},
}

var anyChanging = func() *regexp.Regexp {
	var all []string
	for _, c := range changing {
		all = append(all, c.what.String())
	}
	return regexp.MustCompile(strings.Join(all, "|"))
}()

func (s *steadier) text(text string) string {
	count := make([]int, len(changing))
	return anyChanging.ReplaceAllStringFunc(strings.ReplaceAll(text, s.home, "/home/you"), func(found string) string {
		for i, c := range changing {
			if s.seen[found] == "" && c.what.FindString(found) == found {
				s.seen[found] = c.nth(count[i])
				count[i]++
			}
		}
		return s.seen[found]
	})
}
