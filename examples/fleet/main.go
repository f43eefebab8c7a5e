// Fleet rotates a hundred keys with a progress bar: canaries first, then waves,
// with a bounded width and rate. Half way it is interrupted, and run again: what
// is done stays done.
//
//	go run ./examples/fleet
//
// It needs no account: a fake Ace Data Cloud runs inside of it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/sink"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	dir, err := os.MkdirTemp("", "keywright-fleet-")
	if err == nil {
		err = run(ctx, os.Stdout, dir, 100)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run rotates n credentials of a fake, in two runs of one campaign.
func run(ctx context.Context, out io.Writer, dir string, n int) error {
	fake, err := keywrighttest.NewAceData()
	if err != nil {
		return err
	}
	defer fake.Close()
	f, err := prepare(ctx, fake, dir, n)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d credentials of a fake Ace Data Cloud, each with a token file below\n  %s\n", n, dir)

	first, interrupt := context.WithCancel(ctx)
	defer interrupt()
	if err := f.campaign(first, out, func(done int) {
		if done == n/2 {
			interrupt() // as an operator would, or a deployment
		}
	}); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("want the run interrupted, got %w", err)
	}
	fmt.Fprintln(out, "interrupted; run again:")
	if err := f.campaign(ctx, out, func(int) {}); err != nil {
		return err
	}
	return f.check(ctx, out)
}

// fleet is what the example rotates.
type fleet struct {
	engine *rotation.Engine
	client *keywright.AceData
	fake   *keywrighttest.AceData
	dir    string
	ids    []keywright.CredentialID
}

// prepare makes n credentials and delivers their first tokens.
func prepare(ctx context.Context, fake *keywrighttest.AceData, dir string, n int) (*fleet, error) {
	client, err := keywright.NewAceData(
		keywright.WithoutEnvironment(), keywright.WithBaseURL(fake.URL()), keywright.WithToken(fake.Token()))
	if err != nil {
		return nil, err
	}
	f := &fleet{client: client, fake: fake, dir: dir}
	for range n {
		c, err := client.Credential.Create(ctx, keywright.CredentialCreateParams{ApplicationID: keywright.ApplicationID(fake.ApplicationID())})
		if err != nil {
			return nil, err
		}
		f.ids = append(f.ids, c.ID)
		if err := os.WriteFile(f.path(c.ID), []byte(c.Token.Reveal()+"\n"), 0o600); err != nil {
			return nil, err
		}
	}
	f.engine, err = rotation.Open(filepath.Join(dir, "journal"))
	return f, err
}

func (f *fleet) path(id keywright.CredentialID) string {
	return filepath.Join(f.dir, string(id)+".token")
}

// jobs makes the jobs as they are asked for.
func (f *fleet) jobs() iter.Seq[rotation.Job] {
	return func(yield func(rotation.Job) bool) {
		for _, id := range f.ids {
			job := rotation.Job{
				Name:     string(id),
				Strategy: rotation.AceDataSwap{Client: f.client, Credential: id, IdleFor: -1},
				Sinks:    []sink.Sink{sink.File(f.path(id), sink.WithLag(0))},
				Verify:   f.verify,
			}
			if !yield(job) {
				return
			}
		}
	}
}

// verify asks the provider's data plane whether it takes a token.
func (f *fleet) verify(ctx context.Context, token keywright.Secret) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.fake.URL()+keywrighttest.ProbePath, nil)
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

// campaign rotates what this campaign has not yet rotated.
func (f *fleet) campaign(ctx context.Context, out io.Writer, after func(done int)) error {
	bars := mpb.New(mpb.WithOutput(out), mpb.WithRefreshRate(100*time.Millisecond), mpb.WithWidth(60))
	bar := bars.AddBar(int64(len(f.ids)),
		mpb.PrependDecorators(decor.Name("rotated "), decor.CountersNoUnit("%3d of %3d")),
		mpb.AppendDecorators(decor.Percentage()))
	fleet := &rotation.Fleet{
		Engine: f.engine, Campaign: "example", Width: 8, Canaries: 3, Wave: 25, PerSecond: 100,
		MaxFailures: len(f.ids), // interrupting fails what is under way
		Progress: func(p rotation.Progress) {
			bar.SetCurrent(int64(p.Done))
			after(p.Done)
		},
	}
	_, err := fleet.Run(ctx, f.jobs())
	if err == nil {
		bar.SetTotal(int64(len(f.ids)), true)
	} else {
		bar.Abort(false)
	}
	bars.Wait()
	return errors.Join(err, ctx.Err())
}

// check asks the fake whether every file holds the token of the one credential
// that is left of each.
func (f *fleet) check(ctx context.Context, out io.Writer) error {
	for _, id := range f.ids {
		reading, err := sink.File(f.path(id)).Read(ctx)
		if err != nil {
			return err
		}
		if err := f.verify(ctx, reading.Token); err != nil {
			return err
		}
	}
	made, gone := f.fake.Applied("credential.create")-len(f.ids), f.fake.Applied("credential.delete")
	fmt.Fprintf(out, "%d credentials made, %d deleted; every file holds a token that the provider takes\n", made, gone)
	return nil
}
