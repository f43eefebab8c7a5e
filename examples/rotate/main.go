// Rotate replaces the token of a ricloud key, saves the new token to a file
// and shows which tokens the provider accepts, before, during and after.
//
//	go run ./examples/rotate
//
// It starts a fake ricloud of its own and needs no account. With RICLOUD_TOKEN
// set (and RICLOUD_URL, if need be) it rotates that key at the provider, and
// saves the token to ricloud.token in the current folder.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if _, real := os.LookupEnv("RICLOUD_TOKEN"); real {
		err = atProvider(ctx, os.Stdout, "ricloud.token")
	} else {
		err = demonstrate(ctx, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// atProvider rotates the key behind RICLOUD_TOKEN.
func atProvider(ctx context.Context, out io.Writer, path string) error {
	rc, err := keywright.NewRicloud()
	if err != nil {
		return err
	}
	_, err = rotate(ctx, out, rc, path)
	return err
}

// demonstrate rotates a key of a fake provider, in a folder of its own.
func demonstrate(ctx context.Context, out io.Writer) error {
	dir, err := os.MkdirTemp("", "keywright-rotate-")
	if err != nil {
		return err
	}
	return embedded(ctx, out, filepath.Join(dir, "ricloud.token"))
}

// embedded rotates a key of a fake provider, saves its token at path, and then
// lets six hours pass.
func embedded(ctx context.Context, out io.Writer, path string) error {
	fake, err := keywrighttest.NewRicloud()
	if err != nil {
		return err
	}
	defer fake.Close()
	fmt.Fprintln(out, "started a fake ricloud on loopback; no account is needed")
	rc, err := keywright.NewRicloud(
		keywright.WithoutEnvironment(),
		keywright.WithBaseURL(fake.URL()),
		keywright.WithToken(fake.Token()))
	if err != nil {
		return err
	}
	if _, err := rotate(ctx, out, rc, path); err != nil {
		return err
	}
	fake.Clock().Advance(6*time.Hour + time.Second)
	fmt.Fprintln(out, "six hours later:")
	saved, err := keywright.NewRicloud(
		keywright.WithoutEnvironment(),
		keywright.WithBaseURL(fake.URL()),
		keywright.WithTokenSource(keywright.FileToken(path)))
	if err != nil {
		return err
	}
	if err := probe(ctx, out, "the old token", rc); err != nil {
		return err
	}
	return probe(ctx, out, "the token in the file", saved)
}

// rotate rotates the key that rc authenticates with, and saves its new token
// to the file at path.
func rotate(ctx context.Context, out io.Writer, rc *keywright.Ricloud, path string) (*keywright.Key, error) {
	key, err := rc.Key.Current(ctx)
	if err != nil {
		return nil, err
	}
	old := key.Token
	fmt.Fprintf(out, "key %d is %s; its token has fingerprint %s\n", key.ID, key.State, old.Fingerprint())

	// What can fail before the rotation must not fail after it.
	file, err := prepare(path)
	if err != nil {
		return nil, err
	}
	defer file.discard()
	fmt.Fprintln(out, "the token file can be written")

	if err := replace(ctx, out, rc, key); err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "rotated: the new token has fingerprint %s\n", key.Token.Fingerprint())
	if err := file.commit(key.Token.Reveal() + "\n"); err != nil {
		return nil, errors.Join(err, rescue(key.Token))
	}
	fmt.Fprintf(out, "saved to %s (mode 0600)\n", path)

	next, err := rc.WithTokenSource(keywright.StaticToken(key.Token))
	if err != nil {
		return nil, err
	}
	if err := probe(ctx, out, "the new token", next); err != nil {
		return nil, err
	}
	return key, probe(ctx, out, "the old token, until the grace period ends", rc)
}

// rescue keeps a token that exists nowhere else in a file of its own, and
// returns an error that says where.
func rescue(token keywright.Secret) error {
	f, err := os.CreateTemp("", "keywright-rescued-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.WriteString(token.Reveal() + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return fmt.Errorf("the new token is in %s", f.Name())
}

// replace rotates key, and finds out what happened if the answer is lost.
func replace(ctx context.Context, out io.Writer, rc *keywright.Ricloud, key *keywright.Key) error {
	err := rc.Key.Rotate(ctx, key, keywright.KeyRotateParams{})
	var lost interface {
		Recover(context.Context) (*keywright.Recovery, error)
	}
	if !errors.Is(err, keywright.ErrOutcomeUnknown) || !errors.As(err, &lost) {
		return err
	}
	fmt.Fprintln(out, "the answer was lost; reading the key back")
	found, rerr := lost.Recover(ctx)
	if rerr != nil {
		return errors.Join(err, rerr)
	}
	if found.Outcome != keywright.Applied {
		return fmt.Errorf("%w: %s", err, found.Outcome)
	}
	*key = *found.Resource().(*keywright.Key)
	return nil
}

// probe says whether the provider accepts the token of a client.
func probe(ctx context.Context, out io.Writer, what string, rc *keywright.Ricloud) error {
	switch _, err := rc.Key.Current(ctx); {
	case err == nil:
		fmt.Fprintf(out, "accepted: %s\n", what)
	case errors.Is(err, keywright.ErrUnauthorized):
		fmt.Fprintf(out, "refused: %s\n", what)
	default:
		return err
	}
	return nil
}
