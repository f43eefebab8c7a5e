//go:build unix

package main

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/keywrighttest"
)

// tree returns every command that can be run, and its help, as --help lists
// them.
func tree(t *testing.T, s *site, path ...string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	var walk func(path []string)
	walk = func(path []string) {
		help := s.must(t, 0, append(path, "--help")...).stdout
		if !strings.Contains(help, " [command]\n") {
			all[strings.Join(path, " ")] = help
			return
		}
		_, list, _ := strings.Cut(help, " [command]\n")
		list, _, _ = strings.Cut(list, "\nFlags:")
		for _, m := range regexp.MustCompile(`(?m)^  ([a-z][a-z-]*) +\S`).FindAllStringSubmatch(list, -1) {
			walk(append(append([]string(nil), path...), m[1]))
		}
	}
	walk(path)
	return all
}

// The secrets that the program is given. Others are made by the providers.
const (
	canaryRicloud = "CanaryRicloudTokenCanaryRicloudTokenCanaryRicloudTokenCanary0001"
	canaryAceData = "platform-v1-ca4a47ca4a47ca4a47ca4a47ca4a47ca4a47ca4a47ca4a47ca4a47ca4a470002"
	canaryINI     = "CanaryInTheConfigFileCanaryInTheConfigFileCanaryInTheConfigFi003"
	canaryWebhook = "CanarySecretOfWebhooksCanarySecretOfWebhooksCanarySecretOfWeb004"
	canaryStorage = "CanaryOfTheBucketCanaryOfTheBucketCan005"
)

// secretSite is a site with a job, both providers, and something of everything.
type secretSite struct {
	*site
	vars    map[string]string // ids
	known   map[string]bool   // secrets
	allowed map[string]bool   // files that hold some
}

func newSecretSite(t *testing.T) *secretSite {
	t.Helper()
	s := &secretSite{
		site:  jobSite(t, "ricloud-paired", "", keywrighttest.WithFirstToken(canaryRicloud), keywrighttest.WithDeliveryDelays(time.Millisecond)),
		vars:  make(map[string]string),
		known: make(map[string]bool),
		allowed: map[string]bool{
			".ricloud.ini": true, "auth.token": true, "hook.secret": true, "aws.csv": true, // what commands are given
			"app.token": true, "app.env": true, "delivered": true, // sinks
		},
	}
	for _, c := range []string{canaryRicloud, canaryAceData, canaryINI, canaryWebhook, canaryStorage} {
		s.known[c] = true
	}
	s.acedata(t, keywrighttest.WithFirstToken(canaryAceData))
	s.ad.AddCredentials(2)
	s.write(t, ".ricloud.ini", "[auth]\ntoken = "+canaryINI+"\n")
	s.write(t, "auth.token", canaryRicloud+"\n")
	s.write(t, "given.secret", canaryWebhook+"\n")
	s.allowed["given.secret"], s.allowed["own.ini"] = true, true
	s.write(t, "aws.csv", "Access key ID,Secret access key\nAKIAIOSFODNN7EXAMPLE,"+canaryStorage+"\n")
	// The command that gets the token notes what everybody can see of it.
	s.write(t, "deliver", strings.Replace(s.read("deliver"), "read -r", `for f in /proc/$$/cmdline /proc/$$/environ /proc/$PPID/cmdline; do tr '\000' ' ' <$f >>seen 2>/dev/null; done; read -r`, 1))
	s.must(t, 0, "ricloud", "storage-config", "create", "--location", "s3://bucket/path", "--credentials-file", "aws.csv")
	s.must(t, 0, "ricloud", "webhook-config", "create", "--target", "https://hooks.example.com/ricloud", "--token-file", "hook.secret")
	s.known[strings.TrimSpace(s.read("hook.secret"))] = true
	s.vars["TASK"] = strings.TrimSpace(s.must(t, 0, "ricloud", "storage-config", "test", "1", "--wait", "--output", "name").stdout)
	s.vars["EVENT"] = s.rc.Emit("webhook_config", "updated", map[string]any{"resource": "webhook_config", "secret": canaryWebhook})
	all := s.credentials(t)
	s.vars["CREDENTIAL"], s.vars["OTHER"] = string(all[0].ID), string(all[1].ID)
	s.vars["APPLICATION"], s.vars["SERVICE"] = s.ad.ApplicationID(), s.ad.ServiceID()
	s.vars["PLATFORM"] = strings.Fields(s.must(t, 0, "acedata", "platform-token", "list", "--output", "name").stdout)[0]
	s.vars["MADE"] = strings.TrimSpace(s.must(t, 0, "acedata", "platform-token", "create", "--token-file", "platform.token", "--output", "name").stdout)
	s.allowed["platform.token"] = true
	s.learn(t)
	return s
}

// learn remembers the secrets that there are.
func (s *secretSite) learn(t *testing.T) {
	t.Helper()
	for _, token := range s.everything(t) {
		s.known[token] = true
	}
}

// leaked returns the secrets in a text.
func (s *secretSite) leaked(text string) (found []string) {
	for secret := range s.known {
		if strings.Contains(text, secret) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(secret))[:24]) {
			found = append(found, secret)
		}
	}
	return found
}

// secretLines are what to type for each command, with the exit code if it is
// not 0. They are in the order in which they are tried.
var secretLines = []struct {
	command, args string
	code          int
}{
	{"version", "", 0},
	{"schema", "", 0},
	{"man", "pages", 0},
	{"completion bash", "", 0},
	{"completion fish", "", 0},
	{"completion powershell", "", 0},
	{"completion zsh", "", 0},
	{"config view", "", 0},
	{"config init", "--config own.ini --auth-file auth.token --secret-file given.secret --yes", 0},
	{"doctor", "", 0},
	{"mock ricloud", "", 0},
	{"mock acedata", "", 0},
	{"ricloud event get", "$EVENT", 0},
	{"ricloud event list", "", 0},
	{"ricloud event listen", "--since 1h --count 1", 0},
	{"ricloud key current", "--auth-file auth.token", 0},
	{"ricloud key get", "1", 0},
	{"ricloud key get", "2 --token-file got.token", 0},
	{"ricloud key list", "", 0},
	{"ricloud key create", "--token-file new.token", 0},
	{"ricloud key create", "", 2},
	{"ricloud key rotate", "3 --yes --token-file new.token --force", 0},
	{"ricloud key update", "3 --storage-config 1", 0},
	{"ricloud organisation get", "", 0},
	{"ricloud organisation update", "--name Example", 0},
	{"ricloud storage-config create", "--location s3://bucket/more --credentials-file aws.csv", 0},
	{"ricloud storage-config get", "1", 0},
	{"ricloud storage-config list", "", 0},
	{"ricloud storage-config test", "1", 0},
	{"ricloud storage-config update", "1 --credentials-file aws.csv", 0},
	{"ricloud storage-config delete", "2 --yes", 0},
	{"ricloud task get", "$TASK", 0},
	{"ricloud task list", "", 0},
	{"ricloud task wait", "$TASK", 0},
	{"ricloud webhook-config create", "--target https://hooks.example.com/more --token-file more.secret", 0},
	{"ricloud webhook-config get", "1", 0},
	{"ricloud webhook-config list", "", 0},
	{"ricloud webhook-config test", "1", 0},
	{"ricloud webhook-config update", "1 --target https://hooks.example.com/other", 0},
	{"ricloud webhook-config delete", "2 --yes", 0},
	{"acedata application create", "--service-id $SERVICE", 0},
	{"acedata application get", "$APPLICATION", 0},
	{"acedata application list", "", 0},
	{"acedata credential create", "--application-id $APPLICATION --token-file credential.token", 0},
	{"acedata credential get", "$CREDENTIAL", 0},
	{"acedata credential list", "", 0},
	{"acedata credential rotate", "$CREDENTIAL --yes --token-file credential.token --force", 0},
	{"acedata credential update", "$CREDENTIAL --name other", 0},
	{"acedata credential delete", "$OTHER --yes", 0},
	{"acedata platform-token create", "--token-file platform.token --force", 0},
	{"acedata platform-token get", "$PLATFORM", 0},
	{"acedata platform-token list", "", 0},
	{"acedata platform-token me", "", 0},
	{"acedata platform-token delete", "$MADE --yes", 0},
	{"rotate schema", "", 0},
	{"rotate init", "--file other.yaml", 2},
	{"rotate plan", "", 0},
	{"rotate run", "", 0},
	{"rotate run", "--all --campaign one", 0},
	{"rotate resume", "", 0},
	{"rotate status", "", 0},
	{"rotate rollback", "billing --yes", 1},
}

// TestNoSecrets runs every command there is, and looks for secrets in whatever
// it says and writes.
func TestNoSecrets(t *testing.T) {
	t.Parallel()
	commands := tree(t, newSite(t))
	tried := make(map[string]bool)
	for _, line := range secretLines {
		assert.Contains(t, commands, line.command)
		tried[line.command] = true
	}
	for command := range commands {
		assert.True(t, tried[command] || command == "help", "nobody says how to try: %s", command)
	}
	var stories []story
	for _, options := range []string{"--output table", "--output json", "--output yaml", "--output table -v", "--output json -v", "--output name -v"} {
		stories = append(stories, story{options, func(t *testing.T) {
			s := newSecretSite(t)
			for _, line := range secretLines {
				words := strings.Fields(os.Expand(line.command+" "+line.args, func(name string) string { return s.vars[name] }))
				for i, word := range words {
					if word == "--token-file" {
						s.allowed[words[i+1]] = true
					}
				}
				p := s.start(t, append(words, strings.Fields(options)...)...)
				if strings.HasPrefix(line.command, "mock") {
					require.True(t, p.until("is running"))
					p.signal(interrupt)
				}
				e := p.wait()
				assert.Equal(t, line.code, e.code, "%s\n%s", words, e)
				s.learn(t)
				assert.Empty(t, s.leaked(e.stdout+e.stderr), "%s\n%s", words, e)
			}
			s.checkFiles(t)
			assert.Contains(t, s.read("seen"), "deliver")
		}})
	}
	atOnce(t, stories)
}

// checkFiles looks for secrets in all files that should have none.
func (s *secretSite) checkFiles(t *testing.T) {
	t.Helper()
	files := 0
	require.NoError(t, filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(s.dir, path)
		if err != nil || s.allowed[name] {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil {
			files++
			assert.Empty(t, s.leaked(string(b)), "in the file %s", name)
		}
		return err
	}))
	assert.Greater(t, files, 10, "manual pages, and a journal")
}

// TestTokensOnCommandLine types tokens wherever they do not belong: they are
// not repeated.
func TestTokensOnCommandLine(t *testing.T) {
	t.Parallel()
	s := jobSite(t, "ricloud-paired", "")
	s.rc.Close() // nobody is to answer
	s.env = append(s.env, "RICLOUD_MAX_RETRIES=0", "PLATFORM_API_BASE_URL="+s.rc.URL(), "ACEDATACLOUD_PLATFORM_TOKEN=some-token-0123456789")
	paths := map[string]bool{"--file": true, "--config": true, "--token-file": true, "--env-file": true, "--credentials-file": true, "--campaign": true} // say where; a name
	flag := regexp.MustCompile(`(?m)^ +(?:-\w, )?(--[a-z-]+) [A-Za-z|]+ `)
	tokens := []string{canaryRicloud, canaryAceData}
	var lines [][]string
	for command, help := range tree(t, s) {
		if command == "man" { // takes a directory
			continue
		}
		path, c := strings.Fields(command), tokens[len(lines)%2]
		if path[0] == "ricloud" || path[0] == "acedata" {
			path = append(path, "--attempts", "1")
		}
		add := func(args ...string) { lines = append(lines, append(append([]string(nil), path...), args...)) }
		add("--token", c)
		add("--token=" + c)
		add("-t", c)
		add("-x" + c)
		add("--" + c)
		add("--yes", c)
		add(c, c, c)
		if strings.Contains(help, "-y, --yes") {
			add("--yes=" + c)
		}
		if strings.HasPrefix(command, "mock") || command == "ricloud event listen" {
			continue // would go on
		}
		if !strings.Contains(help, "JOB…") {
			add(c)
		}
		if command != "ricloud key list" && command != "acedata credential list" { // for all the same
			help, _, _ = strings.Cut(help, "Global Flags:")
		}
		for _, m := range flag.FindAllStringSubmatch(help, -1) {
			switch {
			case paths[m[1]]:
			case strings.Contains(help, command+" ID"):
				add("1", m[1], c)
			default:
				add(m[1], c)
			}
		}
	}
	for _, c := range tokens {
		lines = append(lines, []string{c}, []string{"ricloud", c}, []string{"help", c}, []string{"completion", c}, []string{"rotate", "run", c},
			[]string{"rotate", "status", c}, []string{"rotate", "rollback", c, "--yes"}, []string{"rotate", "plan", c, c}, []string{"--" + c, "version"},
			[]string{"ricloud", "key", "get", c}, []string{"acedata", "credential", "get", c}, []string{"ricloud", "--url", c, "key", "list"})
	}
	work := make(chan []string)
	var stories []story
	for n := range 4 {
		stories = append(stories, story{fmt.Sprint(n), func(t *testing.T) {
			for line := range work {
				e := s.run(t, line...)
				for _, c := range tokens {
					assert.NotContains(t, e.stdout+e.stderr, c, "%s\n%s", line, e)
				}
			}
		}})
	}
	go func() {
		defer close(work)
		for _, line := range lines {
			work <- line
		}
	}()
	atOnce(t, stories)
	t.Logf("%d command lines", len(lines))
}
