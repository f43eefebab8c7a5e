package keywright_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
)

// exampleRicloud starts a fake ricloud with two keys, and a client of it.
func exampleRicloud(opts ...keywrighttest.Option) (context.Context, *keywrighttest.Ricloud, *keywright.Ricloud) {
	fake, err := keywrighttest.NewRicloud(opts...)
	if err != nil {
		log.Fatal(err)
	}
	fake.AddKeys(1)
	rc, err := keywright.NewRicloud(keywright.WithoutEnvironment(), keywright.WithBaseURL(fake.URL()), keywright.WithToken(fake.Token()))
	if err != nil {
		log.Fatal(err)
	}
	return context.Background(), fake, rc
}

// exampleAceData starts a fake Ace Data Cloud, and a client of it.
func exampleAceData() (context.Context, *keywrighttest.AceData, *keywright.AceData) {
	fake, err := keywrighttest.NewAceData()
	if err != nil {
		log.Fatal(err)
	}
	ad, err := keywright.NewAceData(keywright.WithoutEnvironment(), keywright.WithBaseURL(fake.URL()), keywright.WithToken(fake.Token()))
	if err != nil {
		log.Fatal(err)
	}
	return context.Background(), fake, ad
}

func Example() {
	fake, err := keywrighttest.NewRicloud() // in real life: the provider
	if err != nil {
		log.Fatal(err)
	}
	defer fake.Close()

	rc, err := keywright.NewRicloud(keywright.WithBaseURL(fake.URL()), keywright.WithToken(fake.Token()))
	if err != nil {
		log.Fatal(err)
	}
	defer rc.CloseIdleConnections()
	ctx := context.Background()
	key, err := rc.Key.Create(ctx, keywright.KeyCreateParams{})
	if err != nil {
		log.Fatal(err)
	}
	if err := rc.Key.Rotate(ctx, key, keywright.KeyRotateParams{}); err != nil {
		log.Fatal(err)
	}
	fmt.Println("key", key.ID, "has a new token:", key.Token) // key.Token.Reveal() is the text
	// Output:
	// key 2 has a new token: [REDACTED]
}

func ExampleKeyService_All() {
	ctx, fake, rc := exampleRicloud()
	defer fake.Close()
	defer rc.CloseIdleConnections()

	for key, err := range rc.Key.All(ctx, keywright.KeyListParams{State: keywright.KeyActive}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(key.ID, key.Type, key.State)
	}
	// Output:
	// 2 standard active
	// 1 standard active
}

func ExampleKeyService_Rotate() {
	ctx, fake, rc := exampleRicloud()
	defer fake.Close()
	defer rc.CloseIdleConnections()
	// The answer to the rotation gets lost after it took effect.
	fake.Inject(keywrighttest.Fault{Op: "key.rotate", When: keywrighttest.AfterApply, Do: keywrighttest.Drop})

	key, err := rc.Key.Retrieve(ctx, 2)
	if err != nil {
		log.Fatal(err)
	}
	err = rc.Key.Rotate(ctx, key, keywright.KeyRotateParams{})
	var lost interface {
		Recover(context.Context) (*keywright.Recovery, error)
	}
	if errors.Is(err, keywright.ErrOutcomeUnknown) && errors.As(err, &lost) {
		fmt.Println(keywright.OutcomeOf(err))
		found, err := lost.Recover(ctx) // reads the key back; sends nothing again
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(found.Outcome)
		key = found.Resource().(*keywright.Key)
	}
	fmt.Println(key.Token.Reveal() == fake.TokenOf(2), fake.Applied("key.rotate"))
	// Output:
	// ambiguous
	// applied
	// true 1
}

func ExampleKeyService_Update() {
	ctx, fake, rc := exampleRicloud()
	defer fake.Close()
	defer rc.CloseIdleConnections()

	hook, err := rc.WebhookConfig.Create(ctx, keywright.WebhookConfigCreateParams{URL: "https://hooks.example.com/"})
	if err != nil {
		log.Fatal(err)
	}
	key, err := rc.Key.UpdateWithID(ctx, 2, keywright.KeyUpdateParams{WebhookConfig: keywright.Set(hook.ID)})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(*key.WebhookConfig)
	// Null returns the key to its organisation's default.
	err = rc.Key.Update(ctx, key, keywright.KeyUpdateParams{WebhookConfig: keywright.Null[keywright.WebhookConfigID]()})
	fmt.Println(key.WebhookConfig, err)
	// Output:
	// 1
	// <nil> <nil>
}

func ExampleStorageConfigService_Create() {
	ctx, fake, rc := exampleRicloud()
	defer fake.Close()
	defer rc.CloseIdleConnections()

	config, err := rc.StorageConfig.Create(ctx, keywright.StorageConfigCreateParams{
		URL: "s3://bucket/results",
		Credentials: keywright.AWSCredentials{
			AccessKeyID:     "AKIAEXAMPLE",
			SecretAccessKey: keywright.NewSecret("example-secret"),
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	task, err := rc.StorageConfig.Test(ctx, config, keywright.WithAwait(5*time.Second))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(config.Type, task.Type, task.State)
	// Output:
	// s3 storage_config.test succeeded
}

func ExampleWebhookConfigService_Create() {
	ctx, fake, rc := exampleRicloud()
	defer fake.Close()
	defer rc.CloseIdleConnections()

	hook, err := rc.WebhookConfig.Create(ctx, keywright.WebhookConfigCreateParams{URL: "https://hooks.example.com/ricloud"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(hook.ID, hook.State, hook.Secret) // hook.Secret.Reveal() verifies deliveries
	fmt.Println(rc.WebhookConfig.Delete(ctx, hook))
	// Output:
	// 1 new [REDACTED]
	// <nil>
}

func ExampleTaskService_Wait() {
	ctx, fake, rc := exampleRicloud(keywrighttest.WithTestDelay(10 * time.Millisecond))
	defer fake.Close()
	defer rc.CloseIdleConnections()

	hook, err := rc.WebhookConfig.Create(ctx, keywright.WebhookConfigCreateParams{URL: "https://hooks.example.com/"})
	if err != nil {
		log.Fatal(err)
	}
	task, err := rc.WebhookConfig.Test(ctx, hook)
	if err != nil {
		log.Fatal(err)
	}
	task, err = rc.Task.Wait(ctx, task.ID)
	fmt.Println(task.State, err)
	// Output:
	// succeeded <nil>
}

func ExampleOrganisationService_Update() {
	ctx, fake, rc := exampleRicloud()
	defer fake.Close()
	defer rc.CloseIdleConnections()

	org, err := rc.Organisation.Update(ctx, keywright.OrganisationUpdateParams{Name: keywright.Set("Data Team")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(org.Name, org.Slug, org.State)
	// Output:
	// Data Team data-team unconfigured
}

func ExampleEventService_List() {
	ctx, fake, rc := exampleRicloud()
	defer fake.Close()
	defer rc.CloseIdleConnections()

	hook, err := rc.WebhookConfig.Create(ctx, keywright.WebhookConfigCreateParams{URL: "https://hooks.example.com/"})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := rc.WebhookConfig.Test(ctx, hook, keywright.WithAwait(5*time.Second)); err != nil {
		log.Fatal(err)
	}
	page, err := rc.Event.List(ctx, keywright.EventListParams{Type: "task", Limit: 1})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(page.Items[0].Slug())
	// Output:
	// task.succeeded
}

func ExampleCredentialService_Create() {
	ctx, fake, ad := exampleAceData()
	defer fake.Close()
	defer ad.CloseIdleConnections()

	credential, err := ad.Credential.Create(ctx, keywright.CredentialCreateParams{
		ApplicationID: keywright.ApplicationID(fake.ApplicationID()),
		Name:          keywright.Set("ci"),
		LimitedAmount: keywright.Set(50.0),
		ExpiredAt:     keywright.Set(time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)),
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(credential.Name, credential.Type, *credential.LimitedAmount, credential.ExpiredAt.Year())
	// Output:
	// ci Token 50 2031
}

func ExampleCredentialService_Update() {
	ctx, fake, ad := exampleAceData()
	defer fake.Close()
	defer ad.CloseIdleConnections()

	credential, err := ad.Credential.Create(ctx, keywright.CredentialCreateParams{
		ApplicationID: keywright.ApplicationID(fake.ApplicationID()),
		LimitedAmount: keywright.Set(50.0),
	})
	if err != nil {
		log.Fatal(err)
	}
	err = ad.Credential.Update(ctx, credential, keywright.CredentialUpdateParams{
		Name:          keywright.Set("ci"),        // changed
		LimitedAmount: keywright.Null[float64](),  // cleared
		ExpiredAt:     keywright.Opt[time.Time]{}, // omitted: as it was
	})
	fmt.Println(credential.Name, credential.LimitedAmount, err)
	// Output:
	// ci <nil> <nil>
}

func ExampleApplicationService_All() {
	ctx, fake, ad := exampleAceData()
	defer fake.Close()
	defer ad.CloseIdleConnections()

	apps, err := keywright.Collect(ad.Application.All(ctx, keywright.ApplicationListParams{Ordering: keywright.OldestFirst}), 100)
	if err != nil {
		log.Fatal(err)
	}
	for _, app := range apps {
		fmt.Println(app.Service.Title, app.Scope)
	}
	// Output:
	// OpenAI Individual
	// Proxy Individual
}

func ExamplePlatformTokenService_Me() {
	ctx, fake, ad := exampleAceData()
	defer fake.Close()
	defer ad.CloseIdleConnections()

	user, err := ad.PlatformToken.Me(ctx)
	fmt.Println(user.Username, err)
	// Output:
	// testuser <nil>
}

func ExampleOutcomeOf() {
	ctx, fake, rc := exampleRicloud()
	defer fake.Close()
	defer rc.CloseIdleConnections()

	_, err := rc.Key.Retrieve(ctx, 99)
	var api *keywright.APIError
	switch {
	case errors.Is(err, keywright.ErrNotFound) && errors.As(err, &api):
		fmt.Println(api.StatusCode, api.Code, keywright.OutcomeOf(err))
	case errors.Is(err, keywright.ErrOutcomeUnknown):
		fmt.Println("read back before doing anything else")
	}
	// Output:
	// 404 not-found rejected
}

func ExampleFileToken() {
	ctx, fake, rc := exampleRicloud()
	defer fake.Close()
	defer rc.CloseIdleConnections()
	dir, err := os.MkdirTemp("", "keywright-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "token")
	save := func(token keywright.Secret) {
		if err := os.WriteFile(path, []byte(token.Reveal()), 0o600); err != nil {
			log.Fatal(err)
		}
	}

	key, err := rc.Key.Retrieve(ctx, 2)
	if err != nil {
		log.Fatal(err)
	}
	save(key.Token)
	service, err := keywright.NewRicloud(keywright.WithBaseURL(fake.URL()), keywright.WithTokenSource(keywright.FileToken(path)))
	if err != nil {
		log.Fatal(err)
	}
	defer service.CloseIdleConnections()
	for range 3 {
		if err := rc.Key.Rotate(ctx, key, keywright.KeyRotateParams{Force: true}); err != nil {
			log.Fatal(err)
		}
		save(key.Token)
		_, err := service.Key.Current(ctx) // takes the new token from the file
		fmt.Println(err)
	}
	// Output:
	// <nil>
	// <nil>
	// <nil>
}

func ExampleRotatingToken() {
	fake, err := keywrighttest.NewRicloud()
	if err != nil {
		log.Fatal(err)
	}
	defer fake.Close()
	ctx := context.Background()

	source := keywright.NewRotatingToken(keywright.NewSecret(fake.Token()))
	rc, err := keywright.NewRicloud(keywright.WithBaseURL(fake.URL()), keywright.WithTokenSource(source))
	if err != nil {
		log.Fatal(err)
	}
	defer rc.CloseIdleConnections()
	key, err := rc.Key.Current(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if err := rc.Key.Rotate(ctx, key, keywright.KeyRotateParams{}); err != nil {
		log.Fatal(err)
	}
	source.Swap(key.Token) // calls under way keep the old token, which works for six more hours
	_, err = rc.Key.Current(ctx)
	fmt.Println(err)
	// Output:
	// <nil>
}
