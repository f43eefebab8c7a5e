// Jobs rotates three keys on a schedule of seconds, as durable jobs in a SQLite
// file, and serves the status page. In the middle of a rotation its worker, a
// process of its own, is killed; the next one goes on where it was.
//
//	go -C jobs run ./examples/jobs
//	go -C jobs run ./examples/jobs -stay   # until it is interrupted
//
// It needs no account and no database: a fake Ace Data Cloud runs inside of it.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/rotation/sink"
)

// childVariable has the settings of the worker's process.
const childVariable = "KEYWRIGHT_EXAMPLE_WORKER"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if text := os.Getenv(childVariable); text != "" {
		var s settings
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			return err
		}
		return workAsChild(ctx, s)
	}
	flags := flag.NewFlagSet("jobs", flag.ContinueOnError)
	stay := flags.Bool("stay", false, "go on until it is interrupted")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "keywright-jobs-") // mode 0700
	if err != nil {
		return err
	}
	return errors.Join(play(ctx, out, dir, *stay), os.RemoveAll(dir))
}

// names are those of the keys.
var names = []string{"billing", "gateway", "search"}

// play is the whole story.
func play(ctx context.Context, out io.Writer, dir string, stay bool) error {
	p := &player{out: out, made: make(chan struct{}, 1)}
	fake, err := keywrighttest.NewAceData(keywrighttest.WithObserver(p.observe))
	if err != nil {
		return err
	}
	defer fake.Close()
	p.fake = fake
	if p.settings, err = prepare(ctx, fake, dir); err != nil {
		return err
	}
	p.print("three keys of a fake Ace Data Cloud, each with a token file below %s\nthe page is on http://%s/\n", dir, p.settings.Listen)

	first, err := p.start()
	if err != nil {
		return err
	}
	if err := first.rotations(ctx, len(names)); err != nil {
		return errors.Join(err, first.kill())
	}
	p.print("every key was rotated; now the worker is killed in the middle of a rotation\n")
	p.armed.Store(true)
	select {
	case <-p.made: // the provider has made a new credential, and the worker knows nothing of it
		err = first.kill()
	case <-ctx.Done():
		err = errors.Join(ctx.Err(), first.kill())
	}
	if err != nil {
		return err
	}
	p.print("killed; the next worker goes on with it:\n")
	began := time.Now()
	second, err := p.start()
	if err != nil {
		return err
	}
	name, err := second.rotation(ctx)
	if err == nil {
		p.print("%s was finished %s after the new worker was started\n", name, time.Since(began).Round(time.Millisecond))
		err = second.rotations(ctx, len(names))
	}
	if err == nil {
		err = p.look(ctx)
	}
	if stay && err == nil {
		p.print("it goes on until it is interrupted\n")
		<-ctx.Done()
	}
	if err = errors.Join(err, second.stop()); err != nil {
		return err
	}
	return p.check(context.WithoutCancel(ctx))
}

// prepare makes three credentials and delivers their first tokens.
func prepare(ctx context.Context, fake *keywrighttest.AceData, dir string) (settings, error) {
	s := settings{Dir: dir, URL: fake.URL(), Keys: make(map[string]string)}
	client, err := keywright.NewAceData(
		keywright.WithoutEnvironment(), keywright.WithBaseURL(fake.URL()), keywright.WithToken(fake.Token()))
	if err != nil {
		return s, err
	}
	if err := os.WriteFile(s.token("platform"), []byte(fake.Token()+"\n"), 0o600); err != nil {
		return s, err
	}
	for _, name := range names {
		c, err := client.Credential.Create(ctx, keywright.CredentialCreateParams{ApplicationID: keywright.ApplicationID(fake.ApplicationID())})
		if err != nil {
			return s, err
		}
		s.Keys[name] = string(c.ID)
		if err := os.WriteFile(s.token(name), []byte(c.Token.Reveal()+"\n"), 0o600); err != nil {
			return s, err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port that both workers use in turn
	if err != nil {
		return s, err
	}
	s.Listen = l.Addr().String()
	return s, l.Close()
}

// player tells the story.
type player struct {
	settings
	fake  *keywrighttest.AceData
	armed atomic.Bool   // the next new credential is to be told
	made  chan struct{} // that it was made

	mu  sync.Mutex
	out io.Writer
}

func (p *player) print(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, format, args...)
}

// observe is called by the provider after each request.
func (p *player) observe(r keywrighttest.Request, _ int) {
	if r.Op == "credential.create" && p.armed.CompareAndSwap(true, false) {
		p.made <- struct{}{}
	}
}

// process is a worker in a process of its own.
type process struct {
	cmd     *exec.Cmd
	in      io.Closer
	rotated chan string // names of jobs whose rotation is over; closed at the end
}

// start starts a worker.
func (p *player) start() (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(p.settings)
	if err != nil {
		return nil, err
	}
	w := &process{cmd: exec.Command(self), rotated: make(chan string, 1000)}
	w.cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	w.cmd.Stderr = os.Stderr
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := w.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(w.rotated)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.print("%s\n", lines.Text())
			if words := strings.Fields(lines.Text()); len(words) > 2 && words[2] == "DONE" {
				select {
				case w.rotated <- words[1]:
				default: // nobody counts any more
				}
			}
		}
	}()
	return w, nil
}

// rotations waits until n keys were rotated at least once by this worker.
func (w *process) rotations(ctx context.Context, n int) error {
	seen := make(map[string]bool)
	for len(seen) < n {
		name, err := w.rotation(ctx)
		if err != nil {
			return err
		}
		seen[name] = true
	}
	return nil
}

// rotation waits for the next rotation, and returns the name of the key.
func (w *process) rotation(ctx context.Context) (string, error) {
	select {
	case name, ok := <-w.rotated:
		if !ok {
			return "", errors.New("the worker has ended by itself")
		}
		return name, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// kill ends the worker as a crash would.
func (w *process) kill() error {
	if err := w.cmd.Process.Kill(); err != nil {
		return err
	}
	for range w.rotated {
	}
	_ = w.cmd.Wait() // it says that it was killed
	return nil
}

// stop lets the worker end what it is doing.
func (w *process) stop() error {
	err := w.in.Close()
	for range w.rotated {
	}
	return errors.Join(err, w.cmd.Wait())
}

// look opens the status page.
func (p *player) look(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.settings.Listen+"/", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.Contains(string(b), name) {
			return fmt.Errorf("the page does not show %s", name)
		}
	}
	p.print("the page shows all of them (%d bytes)\n", len(b))
	return nil
}

// check asks the provider whether every file holds the token of the one
// credential that is left of each key.
func (p *player) check(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(p.settings.Keys)) {
		reading, err := sink.File(p.token(name)).Read(ctx)
		if err != nil {
			return err
		}
		if err := p.verify(ctx, reading.Token); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	made, gone := p.fake.Applied("credential.create")-len(names), p.fake.Applied("credential.delete")
	p.print("%d credentials made, %d deleted; every file holds a token that the provider takes\n", made, gone)
	if made != gone {
		return errors.New("a credential was left behind")
	}
	return nil
}
