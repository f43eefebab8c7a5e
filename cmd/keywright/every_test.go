//go:build unix

package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/keywrighttest"
)

// everyLines are what to type for each command.
var everyLines = []struct {
	command, args string
	away          string // what to add off a terminal
	typed         string // answers to questions
	columns       uint16 // of the terminal; 80
}{
	{command: "version"},
	{command: "schema"},
	{command: "man", args: "pages"},
	{command: "completion bash"},
	{command: "completion fish"},
	{command: "completion powershell"},
	{command: "completion zsh"},
	{command: "config view"},
	{command: "config init", args: "--config own.ini", away: "--yes", typed: canaryRicloud + "\n\n"},
	{command: "doctor", args: "--offline"},
	{command: "mock ricloud"},
	{command: "mock acedata"},
	{command: "ricloud event get", args: "$EVENT"},
	{command: "ricloud event list"},
	{command: "ricloud event listen", args: "--since 1h --count 1"},
	{command: "ricloud key current"},
	{command: "ricloud key get", args: "1"},
	{command: "ricloud key list"},
	{command: "ricloud key create", args: "--token-file new.token"},
	{command: "ricloud key rotate", args: "2 --token-file new.token", away: "--yes", typed: "y\n"},
	{command: "ricloud key update", args: "2 --storage-config 1"},
	{command: "ricloud organisation get"},
	{command: "ricloud organisation update", args: "--name Example"},
	{command: "ricloud storage-config create", args: "--location s3://bucket/more --credentials-file aws.csv"},
	{command: "ricloud storage-config get", args: "1"},
	{command: "ricloud storage-config list"},
	{command: "ricloud storage-config test", args: "1 --wait"},
	{command: "ricloud storage-config update", args: "1 --signed-urls true --signed-urls-expiry 1h"},
	{command: "ricloud storage-config delete", args: "1", away: "--yes", typed: "y\n"},
	{command: "ricloud task get", args: "$TASK"},
	{command: "ricloud task list"},
	{command: "ricloud task wait", args: "$TASK"},
	{command: "ricloud webhook-config create", args: "--target https://hooks.example.com/more --token-file more.secret"},
	{command: "ricloud webhook-config get", args: "1"},
	{command: "ricloud webhook-config list"},
	{command: "ricloud webhook-config test", args: "1 --wait"},
	{command: "ricloud webhook-config update", args: "1 --target https://hooks.example.com/other"},
	{command: "ricloud webhook-config delete", args: "1", away: "--yes", typed: "y\n"},
	{command: "acedata application create", args: "--service-id $SERVICE"},
	{command: "acedata application get", args: "$APPLICATION"},
	{command: "acedata application list"},
	{command: "acedata credential create", args: "--application-id $APPLICATION --token-file new.token"},
	{command: "acedata credential get", args: "$CREDENTIAL"},
	{command: "acedata credential list"},
	{command: "acedata credential rotate", args: "$CREDENTIAL --token-file new.token", away: "--yes", typed: "y\n"},
	{command: "acedata credential update", args: "$CREDENTIAL --name other"},
	{command: "acedata credential delete", args: "$CREDENTIAL", away: "--yes", typed: "y\n"},
	{command: "acedata platform-token create", args: "--tag ci --token-file new.token"},
	{command: "acedata platform-token get", args: "$PLATFORM"},
	{command: "acedata platform-token list"},
	{command: "acedata platform-token me"},
	{command: "acedata platform-token delete", args: "$PLATFORM", away: "--yes", typed: "y\n"},
	{command: "rotate schema"},
	{command: "rotate init", args: "--file other.yaml", typed: "other\n1\n1 2\nfile\napp.token\n1ms\nnone\n\n"},
	{command: "rotate plan", columns: 300}, // where it breaks lines depends on the directory
	{command: "rotate run"},
	{command: "rotate resume"},
	{command: "rotate status"},
	{command: "rotate rollback", args: "billing", away: "--yes", typed: "y\n"},
}

// everySite is a site with a job and something of the provider that a command
// is about. What $NAME stands for in its arguments is in vars.
func everySite(t *testing.T, command string) (s *site, vars map[string]string) {
	t.Helper()
	s = jobSite(t, "ricloud-paired", "{settle_time: 10s, verify_for: 10s, resolve_for: 10s, distribute_for: 10s}",
		keywrighttest.WithFirstToken(canaryRicloud), keywrighttest.WithDeliveryDelays(time.Millisecond))
	s.env = append(s.env, "TERM=xterm")
	// So that what is said does not depend on how fast this machine is.
	s.write(t, "keywright.yaml", strings.NewReplacer("timeout: 300ms", "timeout: 5s", "lag: 20ms", "lag: 500ms").Replace(s.read("keywright.yaml")))
	vars = make(map[string]string)
	name := func(args ...string) string {
		return strings.Fields(s.must(t, 0, append(args, "--output", "name")...).stdout)[0]
	}
	switch path := strings.Fields(command); path[0] {
	case "doctor":
		s.acedata(t, keywrighttest.WithFirstToken(canaryAceData))
		s.env = append(s.env, "HOME=.") // where lines are broken does not depend on it
	case "rotate":
		if path[1] == "resume" || path[1] == "status" || path[1] == "rollback" { // of a rotation that is stuck
			good := s.read("deliver")
			s.write(t, "deliver", "#!/bin/sh\necho the store is gone >&2\nexit 1\n")
			s.must(t, 7, "rotate", "run")
			s.write(t, "deliver", good)
		}
	case "acedata":
		s.acedata(t, keywrighttest.WithFirstToken(canaryAceData))
		s.ad.AddCredentials(1)
		vars["APPLICATION"], vars["SERVICE"] = s.ad.ApplicationID(), s.ad.ServiceID()
		vars["CREDENTIAL"] = string(s.credentials(t)[0].ID)
		if path[1] == "platform-token" {
			vars["PLATFORM"] = name("acedata", "platform-token", "create", "--token-file", "platform.token")
		}
	case "ricloud":
		s.write(t, "aws.csv", "Access key ID,Secret access key\nAKIAIOSFODNN7EXAMPLE,"+canaryStorage+"\n")
		if path[1] == "key" || path[1] == "storage-config" || path[1] == "task" {
			name("ricloud", "storage-config", "create", "--location", "s3://bucket/path", "--credentials-file", "aws.csv")
			vars["TASK"] = name("ricloud", "storage-config", "test", "1", "--wait")
		}
		if path[1] == "webhook-config" {
			name("ricloud", "webhook-config", "create", "--target", "https://hooks.example.com/ricloud", "--token-file", "hook.secret")
			s.run(t, "ricloud", "webhook-config", "test", "1", "--wait")
		}
		if path[1] == "event" {
			vars["EVENT"] = s.rc.Emit("webhook_config", "updated", map[string]any{"resource": "webhook_config", "secret": canaryWebhook})
		}
	}
	return s, vars
}

// TestEveryCommand runs every command there is, off a terminal and on one, and
// compares all that it says with testdata/golden/every.
func TestEveryCommand(t *testing.T) {
	t.Parallel()
	commands := tree(t, newSite(t))
	var stories []story
	for _, line := range everyLines {
		assert.Contains(t, commands, line.command)
		delete(commands, line.command)
		file := filepath.Join("every", strings.ReplaceAll(line.command, " ", "-"))
		stories = append(stories, story{line.command, func(t *testing.T) {
			s, vars := everySite(t, line.command)
			words := strings.Fields(line.command + " " + line.args + " " + line.away)
			p := s.start(t, expanded(words, vars)...)
			if strings.HasPrefix(line.command, "mock") {
				require.True(t, p.until("is running"))
				p.signal(interrupt)
			}
			e := p.wait()
			everyGolden(t, s, words, e.code, "--- stdout\n"+told(line.command, e.stdout)+"--- stderr\n"+e.stderr, file+".txt")
		}}, story{line.command + " on a terminal", func(t *testing.T) {
			s, vars := everySite(t, line.command)
			words := strings.Fields(line.command + " " + line.args)
			show, cmd := onTerminal, s.command(t.Context(), expanded(words, vars)...)
			if strings.HasPrefix(line.command, "mock") {
				show = interruptedOnTerminal
			}
			screen, err := show(cmd, &pty.Winsize{Cols: cmp.Or(line.columns, 80), Rows: 24}, line.typed)
			e := end(t, err, screen, "")
			everyGolden(t, s, words, e.code, "--- terminal\n"+told(line.command, screen), file+".terminal.txt")
		}})
	}
	for command := range commands {
		assert.Equal(t, "help", command, "nobody says how to try it")
	}
	atOnce(t, stories)
	files, err := os.ReadDir(filepath.Join(goldenDir, "every"))
	require.NoError(t, err)
	assert.Len(t, files, len(stories), "files of commands that are no more")
}

// expanded replaces $NAME in what is typed.
func expanded(words []string, vars map[string]string) []string {
	var all []string
	for _, word := range words {
		all = append(all, os.Expand(word, func(name string) string { return vars[name] }))
	}
	return all
}

// interruptedOnTerminal is onTerminal for a fake, which is interrupted once it
// runs.
func interruptedOnTerminal(cmd *exec.Cmd, size *pty.Winsize, _ string) (string, error) {
	tty, err := pty.StartWithSize(cmd, size)
	if err != nil {
		return "", err
	}
	defer tty.Close()
	var screen strings.Builder
	buf := make([]byte, 4096)
	for typed := false; ; {
		n, err := tty.Read(buf)
		screen.Write(buf[:n])
		if err != nil { // the program has ended
			return strings.ReplaceAll(screen.String(), "\r\n", "\n"), cmd.Wait()
		}
		if !typed && strings.Contains(screen.String(), "forgets everything\r\n") {
			typed = true
			if _, err := io.WriteString(tty, "\x03"); err != nil {
				return "", err
			}
		}
	}
}

var (
	ofMachine = regexp.MustCompile(`(?m)^.*(system clock|proxy|certificates) .*\n`)
	ofBuild   = regexp.MustCompile(`(?m)^(\S*(?:go_version|revision|time|modified|platform)\S* +).*$`)
)

// told is what of a command's output is the same on every machine, and short.
func told(command, text string) string {
	switch path := strings.Fields(command); {
	case command == "doctor":
		return ofMachine.ReplaceAllString(text, "")
	case command == "version":
		return ofBuild.ReplaceAllString(text, "${1}…")
	case command == "schema" || command == "rotate schema" || path[0] == "completion":
		lines := strings.SplitAfter(text, "\n")
		if len(lines) > 8 {
			return strings.Join(lines[:8], "") + fmt.Sprintf("… and %d lines more\n", len(lines)-9)
		}
	}
	return text
}

// everyGolden compares what a command has said with a golden file, after
// replacing what differs from run to run, as golden scripts do.
func everyGolden(t *testing.T, s *site, words []string, code int, said, name string) {
	t.Helper()
	said = strings.ReplaceAll(said, s.dir, "$WORK")
	seen := make(map[string]string)
	said = uuids.ReplaceAllStringFunc(said, func(id string) string {
		if seen[id] == "" {
			seen[id] = "00000000-0000-4000-8000-" + strings.Repeat("0", 10) + strconv.Itoa(10+len(seen))
		}
		return seen[id]
	})
	said = times.ReplaceAllString(said, "2026-01-02T03:04:05Z")
	said = address.ReplaceAllString(said, "127.0.0.1:65535")
	said = random.ReplaceAllString(said, "TOKEN")
	said = hexes.ReplaceAllStringFunc(said, func(word string) string { return word[:1] + "0123456789abcdef"[:len(word)-1] })
	said = fmt.Sprintf("$ keywright %s\nexit code %d\n%s", strings.Join(words, " "), code, said)
	path := filepath.Join(goldenDir, name)
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(said), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(want), said)
}
