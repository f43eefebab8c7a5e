// Rotate rotates the key of a service under load, and then does it again and
// again while the rotating process is killed at random moments.
//
//	go run ./examples/rotate
//
// It needs no account: a fake ricloud runs inside of it. The service reads its
// token from a file, 8 workers at a time. The rotation delivers to that file
// and to a line of a dotenv file. Not one request of the service fails.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/rotation"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if dir, url := os.Getenv(envDir), os.Getenv(envURL); dir != "" && url != "" {
		exit(child(ctx, dir, url))
	}
	dir, err := os.MkdirTemp("", "keywright-rotate-")
	if err != nil {
		exit(err)
	}
	exit(demonstrate(ctx, os.Stdout, dir, rand.Uint64(), 10))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// stage is where it all happens.
type stage struct {
	out     io.Writer
	dir     string // the service's: its files, and the journal
	fake    *keywrighttest.Ricloud
	service *service
}

// demonstrate rotates once while everybody watches, and then as often as
// asked while the rotating process is killed.
func demonstrate(ctx context.Context, out io.Writer, dir string, seed uint64, rotations int) error {
	fake, err := keywrighttest.NewRicloud()
	if err != nil {
		return err
	}
	defer fake.Close()
	fake.AddKeys(1)
	s := &stage{out: out, dir: dir, fake: fake}
	if err := s.deliverFirst(); err != nil {
		return err
	}
	if s.service, err = startService(ctx, fake.URL(), tokenFile(dir)); err != nil {
		return err
	}
	defer s.service.stop()
	s.printf("A fake ricloud with keys 1 and 2 runs inside of this program; no account is needed.\n")
	s.printf("A service of %d workers calls it without a pause, with the token in\n  %s\n\n", workers, tokenFile(dir))
	if err := s.watch(ctx); err != nil {
		return err
	}
	if err := s.killing(ctx, seed, rotations); err != nil {
		return err
	}
	return s.over()
}

func (s *stage) printf(format string, args ...any) { fmt.Fprintf(s.out, format, args...) }

// deliverFirst puts the first token where the service looks for it.
func (s *stage) deliverFirst() error {
	return errors.Join(
		os.WriteFile(tokenFile(s.dir), []byte(s.fake.Token()+"\n"), 0o600),
		os.WriteFile(dotenvFile(s.dir), []byte("# settings of the service\nLOG_LEVEL=info\nRICLOUD_TOKEN="+s.fake.Token()+"\n"), 0o600),
	)
}

// watch rotates once, and shows what happens at every state.
func (s *stage) watch(ctx context.Context) error {
	old, idle := s.fake.Token(), s.fake.TokenOf(2)
	start := time.Now()
	line := func(when string) {
		fresh := "none yet"
		if token := s.fake.TokenOf(2); token != idle {
			fresh = s.accepts(token)
		}
		calls, failed := s.service.count()
		s.printf("  %-13s %5d ms   old token: %-8s   new token: %-8s   service: %6d requests, %d failed\n",
			when, time.Since(start).Milliseconds(), s.accepts(old), fresh, calls, failed)
	}
	e, err := rotation.Open(journal(s.dir), rotation.WithObserver(func(v rotation.Event) {
		switch v := v.(type) {
		case rotation.StateChanged:
			line(string(v.To))
		case rotation.SinkChanged:
			if v.State == rotation.SinkConfirmed {
				s.printf("  %-13s %5d ms   %s has the new token\n", "", time.Since(start).Milliseconds(), v.Sink)
			}
		}
	}))
	if err != nil {
		return err
	}
	job, err := newJob(s.dir, s.fake.URL())
	if err != nil {
		return err
	}
	plan, err := e.Plan(ctx, job)
	if err != nil {
		return err
	}
	s.printf("The plan:\n\n%s\nThe rotation:\n\n", plan)
	line("before")
	if _, err := e.Rotate(ctx, job); err != nil {
		return err
	}
	s.service.settle(ctx)
	line("after")
	return nil
}

// accepts says whether the provider accepts a token.
func (s *stage) accepts(token string) string {
	for _, id := range []int64{1, 2} {
		for _, t := range s.fake.AcceptedTokens(id) {
			if t == token {
				return "accepted"
			}
		}
	}
	return "refused"
}

// killing rotates with a process of its own, which is killed at random
// moments and started again until it is done.
func (s *stage) killing(ctx context.Context, seed uint64, rotations int) error {
	s.printf("\nThe same, by a process that is killed at random moments (seed %d):\n\n", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	e, err := rotation.Open(journal(s.dir))
	if err != nil {
		return err
	}
	kills := 0
	for n := 1; n <= rotations; n++ {
		var states []string
		for {
			// The longer it lives, the less often it is killed.
			after := time.Duration(random.IntN(60*(len(states)+1))) * time.Millisecond
			killed, err := runChild(ctx, s.dir, s.fake.URL(), after)
			if err != nil {
				return err
			}
			if !killed {
				break
			}
			status, err := e.Status(ctx, jobName)
			if err != nil {
				return err
			}
			if status.State.Finished() {
				states = append(states, "no state, as nothing was under way")
			} else {
				states = append(states, string(status.State))
			}
		}
		kills += len(states)
		how := "not killed"
		if len(states) > 0 {
			how = "killed in " + strings.Join(states, ", in ")
		}
		token, err := s.delivered()
		if err != nil {
			return err
		}
		s.printf("  rotation %2d: %s; DONE; the token in both files is %s\n", n, how, s.accepts(token))
		if s.accepts(token) != "accepted" {
			return errors.New("the delivered token does not work")
		}
	}
	s.printf("\n%d rotations, %d kills.\n", rotations, kills)
	return nil
}

// delivered returns the token that both files hold.
func (s *stage) delivered() (string, error) {
	var tokens []string
	for _, k := range sinks(s.dir) {
		reading, err := k.Read(context.Background())
		if err != nil {
			return "", err
		}
		tokens = append(tokens, reading.Token.Reveal())
	}
	if tokens[0] != tokens[1] {
		return "", errors.New("the files hold different tokens")
	}
	return tokens[0], nil
}

// over says how the service has fared.
func (s *stage) over() error {
	s.service.stop()
	calls, failed := s.service.count()
	s.printf("The service made %d requests in all; %d failed.\n", calls, failed)
	s.printf("The token now lives in\n  %s\n  %s\nand, sealed, in\n  %s\n",
		tokenFile(s.dir), dotenvFile(s.dir), filepath.Join(journal(s.dir), jobName))
	if err := s.service.firstError(); err != nil {
		return fmt.Errorf("a request of the service failed: %w", err)
	}
	return nil
}
