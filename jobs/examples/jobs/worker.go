package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/jobs/page"
	"github.com/keywright/keywright/jobs/schedule"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/sink"
)

// settings are what a worker is told. They hold no token.
type settings struct {
	Dir    string            // of the database, the sealing key and the token files
	URL    string            // of the provider
	Listen string            // of the page
	Keys   map[string]string // ids of the first credentials, by the names of the jobs
}

// token is the file of a key's token; that of the platform's token is named
// "platform".
func (s settings) token(name string) string { return filepath.Join(s.Dir, name+".token") }

// work rotates the keys on schedule, and serves the page, until ctx ends.
func work(ctx context.Context, s settings) error {
	st, err := store.OpenSQLite(ctx, filepath.Join(s.Dir, "keywright.db"))
	if err != nil {
		return err
	}
	defer st.Close()
	client, err := keywright.NewAceData(
		keywright.WithoutEnvironment(), keywright.WithBaseURL(s.URL),
		keywright.WithTokenSource(keywright.FileToken(s.token("platform"))),
		keywright.WithTimeout(time.Second), keywright.WithMiddleware(jobs.Guard))
	if err != nil {
		return err
	}
	worker, err := jobs.New(st,
		jobs.WithSealer(rotation.SealKeyFile(filepath.Join(s.Dir, "seal.key"))),
		jobs.WithSweep(time.Second),
		jobs.WithResults(func(r jobs.Result) {
			if r.Over || r.Err != nil {
				fmt.Println("  worker:", r.Job, r.State, r.Took.Round(time.Millisecond), errorText(r.Err))
			}
		}))
	if err != nil {
		return err
	}
	often, err := schedule.Parse([]byte(`{"every": "6s", "jitter": "2s"}`)) // yours has days
	if err != nil {
		return err
	}
	for name, id := range s.Keys {
		if err := worker.Register(ctx, jobs.Job{Schedule: often, Job: rotation.Job{
			Name:     name,
			Strategy: rotation.AceDataSwap{Client: client, Credential: keywright.CredentialID(id), IdleFor: -1},
			Sinks:    []sink.Sink{sink.File(s.token(name), sink.WithLag(0))},
			Verify:   s.verify,
			Policy:   rotation.Policy{SettleTime: 2 * time.Second}, // twice the time-out
		}}); err != nil {
			return err
		}
	}
	began := time.Now()
	if err := worker.Start(ctx); err != nil {
		return err
	}
	fmt.Printf("  worker: started in %s\n", time.Since(began).Round(time.Millisecond))
	return errors.Join(s.serve(ctx, worker, st), worker.Stop(context.WithoutCancel(ctx)))
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// serve serves the status page until ctx ends.
func (s settings) serve(ctx context.Context, worker *jobs.Runner, st *store.Store) error {
	pages, err := page.New(worker, st)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", s.Listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: pages, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// verify asks the provider's data plane whether it takes a token.
func (s settings) verify(ctx context.Context, token keywright.Secret) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+keywrighttest.ProbePath, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusUnauthorized:
		return rotation.ErrNotAccepted
	}
	return errors.New("the data plane answers " + resp.Status)
}

// workAsChild is the program as the worker process.
func workAsChild(ctx context.Context, s settings) error {
	// The parent ends a worker by closing its standard input, or kills it.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		cancel()
	}()
	return work(ctx, s)
}
