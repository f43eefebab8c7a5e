// Webhook receives ricloud's events, and changes the secret that they are
// signed with while they go on.
//
//	go run ./examples/webhook
//
// It starts a fake ricloud of its own and needs no account.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/webhook"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	ricloud, err := keywrighttest.NewRicloud()
	if err != nil {
		return err
	}
	defer ricloud.Close()
	rc, err := keywright.NewRicloud(
		keywright.WithoutEnvironment(),
		keywright.WithBaseURL(ricloud.URL()),
		keywright.WithToken(ricloud.Token()))
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "webhook")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	r := receiver{out: out, inbox: webhook.NewFileStore(dir + "/events")}
	return r.run(ctx, rc, func() error { return somethingHappens(ctx, ricloud) })
}

// receiver is a program that prints what happens.
type receiver struct {
	out   io.Writer
	inbox *webhook.FileStore
}

// run receives events until its work, which makes some, is done. Meanwhile it
// changes the secret.
func (r *receiver) run(ctx context.Context, rc *keywright.Ricloud, work func() error) (err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}

	reg, err := webhook.Register(ctx, rc, "http://"+listener.Addr().String()+"/hooks")
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	mux.Handle("/hooks/", webhook.Handler(reg.Verifier(), r.inbox.Accept, webhook.WithStore(r.inbox)))

	processing, stop := context.WithCancelCause(ctx)
	var background sync.WaitGroup
	background.Go(func() { _ = server.Serve(listener) })
	background.Go(func() { stop(r.inbox.Process(processing, r.print)) })
	defer func() {
		cleanup := context.WithoutCancel(ctx)
		err = errors.Join(err, reg.Close(cleanup), server.Shutdown(cleanup), r.wait(processing))
		stop(nil)
		background.Wait()
		fmt.Fprintln(r.out, "closed: what was in effect before is again")
	}()

	if err := reg.Activate(ctx); err != nil {
		return err
	}
	fmt.Fprintf(r.out, "config %d has passed its test and is in effect\n", reg.Config())

	worked := make(chan error, 1)
	go func() { worked <- work() }()
	if err := reg.Replace(ctx); err != nil {
		return errors.Join(err, <-worked)
	}
	fmt.Fprintf(r.out, "config %d, with a secret of its own, has replaced it; both secrets are accepted\n", reg.Config())
	if err := <-worked; err != nil { // when all attempts with the old secret are over
		return err
	}
	if err := reg.Retire(ctx); err != nil {
		return err
	}
	fmt.Fprintln(r.out, "the old secret is retired")
	return nil
}

// print does what there is to do about an event. It may be called again for
// the same one, if the program is killed before it returns.
func (r *receiver) print(_ context.Context, e *webhook.Event) error {
	switch {
	case e.Task != nil:
		fmt.Fprintf(r.out, "event %s: a %s\n", e.Slug(), e.Task.Type)
	case e.WebhookConfig != nil:
		fmt.Fprintf(r.out, "event %s: config %d\n", e.Slug(), e.WebhookConfig.ID)
	default:
		fmt.Fprintf(r.out, "event %s: %s\n", e.Slug(), e.Data.Reveal())
	}
	return nil
}

// wait waits until all events that were accepted are printed.
func (r *receiver) wait(ctx context.Context) error {
	for ctx.Err() == nil {
		n, err := r.inbox.Pending(ctx)
		if n == 0 || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	return context.Cause(ctx)
}

// somethingHappens makes ricloud deliver events for a second, and waits until
// they are.
func somethingHappens(ctx context.Context, ricloud *keywrighttest.Ricloud) error {
	for i := range 10 {
		id := ricloud.Emit("session", "expired", map[string]any{"id": fmt.Sprint("session-", i)})
		state, err := ricloud.WaitDelivered(ctx, id)
		if err != nil {
			return err
		}
		if state != "delivered" {
			return fmt.Errorf("event %s: %s", id, state)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}
