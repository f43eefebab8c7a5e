//go:build unix

package main

import (
	"errors"
	"flag"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keywright/keywright/keywrighttest"
)

var update = flag.Bool("update", false, "write the golden files of testdata/golden anew")

// TestScripts runs the scripts in testdata/script: command lines of the built
// program against the fake providers, as a user types them. Beside the commands
// of testscript (exec, stdout, stderr, cmp, exists, stdin, env, …) they have:
//
//	provider ricloud|acedata [VARIANT…]
//	    Starts a fake provider and sets the environment so that the program
//	    finds it, with its token. Variants: see variants.
//	fault PROVIDER OPERATION before|after|late drop|reset|cut|STATUS [RETRY-AFTER]
//	    Makes the next request of an operation go wrong.
//	exits CODE PROGRAM ARGUMENT…
//	    Runs a program, off a terminal, which must exit with CODE.
//	terminal [-cols N] [-type TEXT] CODE PROGRAM ARGUMENT…
//	    Runs a program on a pseudo-terminal of N columns, 80 without a say, and
//	    types TEXT, in which \n is a line end and \x03 is Ctrl-C. What the terminal shows is in
//	    the file "terminal".
//	golden stdout|stderr|FILE NAME
//	    Compares a text with testdata/golden/NAME after replacing what differs
//	    from run to run; with -update it is written.
//	sent PROVIDER OPERATION N
//	    The provider has received N requests of an operation.
//	accepted ricloud|acedata ID FILE
//	    The provider accepts the token in a file as that of a key or credential.
//	mode FILE OCTAL
//	    The file has this mode.
//	setup PROVIDER WHAT [ARGUMENT…]
//	    Changes a fake's state; see setup.
//	capture NAME
//	    Sets a variable to what the last command has printed.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(program)+string(os.PathListSeparator)+os.Getenv("PATH"))
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("TERM", "xterm")
			env.Values[worldKey{}] = &world{}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"provider": cmdProvider,
			"fault":    cmdFault,
			"exits":    cmdExits,
			"terminal": cmdTerminal,
			"golden":   cmdGolden,
			"sent":     cmdSent,
			"accepted": cmdAccepted,
			"mode":     cmdMode,
			"setup":    cmdSetup,
			"capture":  cmdCapture,
		},
	})
}

// world is what a script works with.
type world struct {
	ricloud *keywrighttest.Ricloud
	acedata *keywrighttest.AceData
}

type worldKey struct{}

func worldOf(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

// fake is what both fakes have.
type fake interface {
	Inject(...keywrighttest.Fault)
	Count(op string) int
}

func (w *world) fake(ts *testscript.TestScript, name string) fake {
	switch {
	case name == "ricloud" && w.ricloud != nil:
		return w.ricloud
	case name == "acedata" && w.acedata != nil:
		return w.acedata
	}
	ts.Fatalf("no provider %q was started", name)
	return nil
}

// variants are the options of the fakes that scripts use.
var variants = map[string]keywrighttest.Option{
	"masked":            keywrighttest.WithMaskedTokens(),
	"empty-delete":      keywrighttest.WithEmptyDelete(),
	"inclusive":         keywrighttest.WithInclusiveCursor(),
	"webhook-required":  keywrighttest.WithWebhookRequired(),
	"nested-references": keywrighttest.WithNestedReferences(),
	"many-grace-tokens": keywrighttest.WithManyGraceTokens(),
	"superuser":         keywrighttest.WithSuperuser(),
	"quick-delivery":    keywrighttest.WithDeliveryDelays(time.Millisecond),
	"failing-tests":     keywrighttest.WithTestResult(func(map[string]any) string { return "connection-refused" }),
	"slow-tests":        keywrighttest.WithTestDelay(2 * time.Second),
}

func cmdProvider(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: provider ricloud|acedata [VARIANT…]")
	}
	w := worldOf(ts)
	opts := []keywrighttest.Option{keywrighttest.WithDeliveryDelays(time.Millisecond)}
	for _, name := range args[1:] {
		o, ok := variants[name]
		if !ok {
			ts.Fatalf("unknown variant %q", name)
		}
		opts = append(opts, o)
	}
	switch args[0] {
	case "ricloud":
		f, err := keywrighttest.NewRicloud(opts...)
		ts.Check(err)
		ts.Defer(f.Close)
		w.ricloud = f
		ts.Setenv("RICLOUD_URL", f.URL())
		ts.Setenv("RICLOUD_TOKEN", f.Token())
	case "acedata":
		f, err := keywrighttest.NewAceData(opts...)
		ts.Check(err)
		ts.Defer(f.Close)
		w.acedata = f
		ts.Setenv("PLATFORM_API_BASE_URL", f.URL())
		ts.Setenv("ACEDATACLOUD_PLATFORM_TOKEN", f.Token())
		ts.Setenv("APPLICATION", f.ApplicationID())
		ts.Setenv("PROXY_APPLICATION", f.ProxyApplicationID())
		ts.Setenv("SERVICE", f.ServiceID())
		ts.Setenv("USER_ID", f.UserID())
	default:
		ts.Fatalf("unknown provider %q", args[0])
	}
}

func cmdFault(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 || len(args) > 5 {
		ts.Fatalf("usage: fault PROVIDER OPERATION before|after|late ACTION [RETRY-AFTER]")
	}
	f := keywrighttest.Fault{Op: args[1]}
	switch args[2] {
	case "before":
		f.When = keywrighttest.BeforeApply
	case "after":
		f.When = keywrighttest.AfterApply
	case "late":
		f.When, f.Delay = keywrighttest.LateApply, 200*time.Millisecond
	default:
		ts.Fatalf("unknown moment %q", args[2])
	}
	switch args[3] {
	case "drop":
		f.Do = keywrighttest.Drop
	case "reset":
		f.Do = keywrighttest.Reset
	case "cut":
		f.Do = keywrighttest.Cut
	default:
		status, err := strconv.Atoi(args[3])
		ts.Check(err)
		f.Do, f.Status, f.Times = keywrighttest.Answer, status, -1
		if len(args) == 5 {
			f.Header = http.Header{"Retry-After": {args[4]}}
		}
	}
	worldOf(ts).fake(ts, args[0]).Inject(f)
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGUMENT…")
	}
	err := ts.Exec(args[1], args[2:]...)
	checkCode(ts, args[0], err)
}

func checkCode(ts *testscript.TestScript, want string, err error) {
	code, exit := 0, (*exec.ExitError)(nil)
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != want {
		ts.Fatalf("exit code %d, want %s", code, want)
	}
}

func cmdTerminal(ts *testscript.TestScript, neg bool, args []string) {
	size, typed := pty.Winsize{Cols: 80, Rows: 24}, ""
	for len(args) > 2 && strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "-cols":
			n, err := strconv.ParseUint(args[1], 10, 16)
			ts.Check(err)
			size.Cols = uint16(n)
		case "-type":
			typed = strings.NewReplacer(`\n`, "\n", `\x03`, "\x03\n").Replace(args[1])
		default:
			ts.Fatalf("unknown option %s", args[0])
		}
		args = args[2:]
	}
	if neg || len(args) < 2 {
		ts.Fatalf("usage: terminal [-cols N] [-type TEXT] CODE PROGRAM ARGUMENT…")
	}
	name := args[1]
	if name == "keywright" {
		name = program
	}
	cmd := exec.Command(name, args[2:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = environ(ts)
	screen, err := onTerminal(cmd, &size, typed)
	ts.Logf("[terminal]\n%s", screen)
	ts.Check(os.WriteFile(ts.MkAbs("terminal"), []byte(screen), 0o600))
	checkCode(ts, args[0], err)
}

// environ is the environment of a script.
func environ(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range []string{
		"PATH", "HOME", "TERM", "NO_COLOR", "COLUMNS", "XDG_STATE_HOME", "TMPDIR", "PWD",
		"RICLOUD_URL", "RICLOUD_TOKEN", "RICLOUD_CONF", "RICLOUD_MAX_RETRIES", "RICLOUD_AWAIT_FOR", "RICLOUD_DELTA",
		"PLATFORM_API_BASE_URL", "ACEDATACLOUD_PLATFORM_TOKEN", "KEYWRIGHT_FILE",
	} {
		if v := ts.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// onTerminal runs a command on a pseudo-terminal and returns what it shows.
// Each line of typed is typed when a question, which ends in a colon and a
// blank, waits for it.
func onTerminal(cmd *exec.Cmd, size *pty.Winsize, typed string) (string, error) {
	tty, err := pty.StartWithSize(cmd, size)
	if err != nil {
		return "", err
	}
	defer tty.Close()
	lines := strings.SplitAfter(typed, "\n")
	var screen strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := tty.Read(buf)
		screen.Write(buf[:n])
		if err != nil { // the program has ended
			return strings.ReplaceAll(screen.String(), "\r\n", "\n"), cmd.Wait()
		}
		if len(lines) > 0 && strings.HasSuffix(screen.String(), ": ") {
			if _, err := io.WriteString(tty, lines[0]); err != nil {
				return "", err
			}
			lines = lines[1:]
		}
	}
}

func cmdGolden(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: golden stdout|stderr|FILE NAME")
	}
	got := steady(ts, ts.ReadFile(args[0]))
	path := filepath.Join(goldenDir, args[1])
	if *update {
		ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
		ts.Check(os.WriteFile(path, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	ts.Check(err)
	if got != string(want) {
		ts.Fatalf("%s differs from %s:\n%s\nwant:\n%s", args[0], args[1], got, want)
	}
}

// goldenDir is absolute, because scripts have working directories of their own.
var goldenDir = func() string {
	dir, err := filepath.Abs("testdata/golden")
	if err != nil {
		panic(err)
	}
	return dir
}()

var (
	uuids   = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	times   = regexp.MustCompile(`20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	address = regexp.MustCompile(`127\.0\.0\.1:\d+`)
	random  = regexp.MustCompile(`\b([A-Za-z0-9_]{40,}|[0-9a-f]{32}|u[0-9a-f]{16})\b`)
	hexes   = regexp.MustCompile(`[ "]([0-9a-f]{12}|[0-9a-f]{16})\b`) // fingerprints, operations
	spent   = regexp.MustCompile(`duration=\S+`)
)

// steady replaces what differs from run to run by something of the same length
// where that is known, so that tables stay aligned.
func steady(ts *testscript.TestScript, s string) string {
	s = strings.ReplaceAll(s, ts.MkAbs("."), "$WORK")
	seen := make(map[string]string)
	s = uuids.ReplaceAllStringFunc(s, func(id string) string {
		if seen[id] == "" {
			seen[id] = "00000000-0000-4000-8000-" + strings.Repeat("0", 10) + strconv.Itoa(10+len(seen))
		}
		return seen[id]
	})
	s = times.ReplaceAllString(s, "2026-01-02T03:04:05Z")
	s = address.ReplaceAllString(s, "127.0.0.1:65535")
	s = random.ReplaceAllString(s, "TOKEN")
	s = hexes.ReplaceAllStringFunc(s, func(word string) string {
		return word[:1] + "0123456789abcdef"[:len(word)-1]
	})
	return spent.ReplaceAllString(s, "duration=1ms")
}

func cmdSent(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: sent PROVIDER OPERATION N")
	}
	if n := worldOf(ts).fake(ts, args[0]).Count(args[1]); strconv.Itoa(n) != args[2] {
		ts.Fatalf("%s got %d requests of %s, want %s", args[0], n, args[1], args[2])
	}
}

func cmdAccepted(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: [!] accepted PROVIDER ID FILE")
	}
	token := strings.TrimSpace(ts.ReadFile(args[2]))
	var tokens []string
	if w := worldOf(ts); args[0] == "ricloud" {
		id, err := strconv.ParseInt(args[1], 10, 64)
		ts.Check(err)
		tokens = w.ricloud.AcceptedTokens(id)
	} else {
		tokens = w.acedata.AcceptedTokens(args[1])
	}
	if slices.Contains(tokens, token) == neg {
		ts.Fatalf("whether the token in %s is accepted: %t", args[2], neg)
	}
}

func cmdMode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode FILE OCTAL")
	}
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := strconv.FormatUint(uint64(info.Mode().Perm()), 8); got != strings.TrimLeft(args[1], "0") {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}

func cmdCapture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: capture NAME")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// cmdSetup changes the state of a fake.
func cmdSetup(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: setup PROVIDER WHAT [ARGUMENT…]")
	}
	w := worldOf(ts)
	switch strings.Join(args[:2], " ") {
	case "acedata credentials":
		n, err := strconv.Atoi(args[2])
		ts.Check(err)
		w.acedata.AddCredentials(n)
	case "acedata foreign-credential":
		ts.Setenv("FOREIGN_CREDENTIAL", w.acedata.AddForeignCredential())
	case "acedata foreign-token":
		ts.Setenv("FOREIGN_TOKEN", w.acedata.AddForeignToken())
	case "acedata used":
		amount, err := strconv.ParseFloat(args[3], 64)
		ts.Check(err)
		w.acedata.SetUsed(args[2], amount)
	default:
		ts.Fatalf("unknown setup %q", args)
	}
}
