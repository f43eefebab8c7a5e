// Quickstart makes, lists, restricts, rotates and deletes keys at both
// providers.
//
//	go run ./examples/quickstart
//
// It starts fake providers of its own and needs no account.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
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
	if err := atRicloud(ctx, out, rc); err != nil {
		return err
	}

	aceData, err := keywrighttest.NewAceData()
	if err != nil {
		return err
	}
	defer aceData.Close()
	ad, err := keywright.NewAceData(
		keywright.WithoutEnvironment(),
		keywright.WithBaseURL(aceData.URL()),
		keywright.WithToken(aceData.Token()))
	if err != nil {
		return err
	}
	return atAceData(ctx, out, ad)
}

func atRicloud(ctx context.Context, out io.Writer, rc *keywright.Ricloud) error {
	hook, err := rc.WebhookConfig.Create(ctx, keywright.WebhookConfigCreateParams{URL: "https://hooks.example.com/ricloud"})
	if err != nil {
		return err
	}
	key, err := rc.Key.Create(ctx, keywright.KeyCreateParams{WebhookConfig: keywright.Set(hook.ID)})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "ricloud: made key %d, which sends events to webhook config %d\n", key.ID, hook.ID)
	for k, err := range rc.Key.All(ctx, keywright.KeyListParams{State: keywright.KeyActive}) {
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "ricloud: key %d is %s, token %v\n", k.ID, k.State, k.Token)
	}
	if err := rc.Key.Update(ctx, key, keywright.KeyUpdateParams{WebhookConfig: keywright.Null[keywright.WebhookConfigID]()}); err != nil {
		return err
	}
	fmt.Fprintf(out, "ricloud: key %d is back to its organisation's webhook config\n", key.ID)
	old := key.Token
	if err := rc.Key.Rotate(ctx, key, keywright.KeyRotateParams{Force: true}); err != nil {
		return err
	}
	fmt.Fprintf(out, "ricloud: rotated key %d; the token changed: %v\n", key.ID, !key.Token.Equal(old))
	if err := rc.WebhookConfig.Delete(ctx, hook); err != nil {
		return err
	}
	fmt.Fprintf(out, "ricloud: deleted webhook config %d; keys themselves cannot be deleted\n", hook.ID)
	return nil
}

func atAceData(ctx context.Context, out io.Writer, ad *keywright.AceData) error {
	apps, err := keywright.Collect(ad.Application.All(ctx, keywright.ApplicationListParams{}), 100)
	if err != nil {
		return err
	}
	var app *keywright.Application
	for _, a := range apps {
		if a.Service != nil && a.Service.Type == keywright.ServiceAPI {
			app = a
		}
	}
	if app == nil {
		return fmt.Errorf("no application for an API service")
	}
	credential, err := ad.Credential.Create(ctx, keywright.CredentialCreateParams{
		ApplicationID: app.ID,
		Name:          keywright.Set("quickstart"),
		ExpiredAt:     keywright.Set(time.Now().AddDate(0, 0, 90)),
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "acedata: made credential %q of type %s, token %v\n", credential.Name, credential.Type, credential.Token)
	for c, err := range ad.Credential.All(ctx, keywright.CredentialListParams{}) {
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "acedata: credential %q has used %g\n", c.Name, c.UsedAmount)
	}
	if err := ad.Credential.Update(ctx, credential, keywright.CredentialUpdateParams{LimitedAmount: keywright.Set(5.0)}); err != nil {
		return err
	}
	fmt.Fprintf(out, "acedata: credential %q is limited to %g %s\n", credential.Name, *credential.LimitedAmount, app.Service.Unit)
	old := credential.Token
	if err := ad.Credential.Rotate(ctx, credential); err != nil {
		return err
	}
	fmt.Fprintf(out, "acedata: rotated; the token changed: %v\n", !credential.Token.Equal(old))
	if err := ad.Credential.Delete(ctx, credential); err != nil {
		return err
	}
	fmt.Fprintf(out, "acedata: deleted credential %q\n", credential.Name)
	return nil
}
