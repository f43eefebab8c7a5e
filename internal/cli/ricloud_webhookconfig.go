package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright"
)

var webhookConfigColumns = []string{"id", "url", "state", "secret", "date_created"}

// webhookFlag is the flag for a parameter whose own name is that of another
// flag.
var webhookFlag = map[string]string{"url": "target"}

func (a *app) webhookConfigGroup() *cobra.Command {
	return group("webhook-config", "Say where events are sent",
		a.webhookConfigList(), a.webhookConfigGet(), a.webhookConfigCreate(), a.webhookConfigUpdate(),
		a.webhookConfigTest(), a.webhookConfigDelete())
}

func (a *app) webhookConfigList() *cobra.Command {
	var (
		p keywright.WebhookConfigListParams
		l listFlags
	)
	c := &cobra.Command{Use: "list", Short: "List webhook configs", Example: "keywright ricloud webhook-config list --output json"}
	idVar(c.Flags(), &p.AfterID, "after", "begin behind the config with this `ID`")
	idVar(c.Flags(), &p.BeforeID, "before", "stop before the config with this `ID`")
	l.define(c, "1000")
	c.RunE = onRicloud(a, func(_ *cobra.Command, rc *keywright.Ricloud) error {
		p.Limit = l.pageSize
		return runList(a, &l, webhookConfigColumns, rc.WebhookConfig.All(a.ctx, p))
	})
	return c
}

func (a *app) webhookConfigGet() *cobra.Command {
	c := &cobra.Command{
		Use: "get ID", Short: "Show a webhook config", Args: arguments("ID"),
		Example: "keywright ricloud webhook-config get 3\nkeywright ricloud webhook-config get 3 --token-file ./webhook.secret",
	}
	s := a.saving(c)
	c.RunE = ricloudWithID(a, func(c *cobra.Command, rc *keywright.Ricloud, id keywright.WebhookConfigID) error {
		return show(a, c, s, webhookSecret, func() (*keywright.WebhookConfig, error) { return rc.WebhookConfig.Retrieve(a.ctx, id) })
	})
	return c
}

func webhookSecret(c *keywright.WebhookConfig) keywright.Secret { return c.Secret }

func (a *app) webhookConfigCreate() *cobra.Command {
	var p keywright.WebhookConfigCreateParams
	c := &cobra.Command{
		Use: "create --target URL", Short: "Create a webhook config",
		Long: `Create a webhook config, with a secret that signs the deliveries and that
ricloud makes. ricloud begins to test it at once, with a delivery: have the
receiver running, and give it the secret.

The call is sent once. If its answer is lost, the config is looked up.`,
		Example: "keywright ricloud webhook-config create --target https://hooks.example.com/ricloud --token-file ./webhook.secret",
	}
	textVar(c.Flags(), &p.URL, "target", "send events to `URL`, which is https and can be reached from ricloud")
	s := a.issuing(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := required(c, "target"); err != nil {
			return err
		}
		rc, err := a.ricloud()
		if err != nil {
			return err
		}
		if err := s.reserve(c); err != nil {
			return err
		}
		defer s.release()
		before := existing(rc.WebhookConfig.List(a.ctx, keywright.WebhookConfigListParams{Limit: 1000}))
		config, err := change(a, "keywright ricloud webhook-config list", func(ctx context.Context) (*keywright.WebhookConfig, error) {
			return rc.WebhookConfig.Create(ctx, p, before)
		})
		if err != nil {
			return asFlag(err, webhookFlag)
		}
		s.again = fmt.Sprintf("delete it and create another: keywright ricloud webhook-config delete %d", config.ID)
		return printIssued(a, s, config, config.Secret)
	}
	return c
}

func (a *app) webhookConfigUpdate() *cobra.Command {
	var p keywright.WebhookConfigUpdateParams
	c := &cobra.Command{
		Use: "update ID --target URL", Short: "Change a webhook config's target", Args: arguments("ID"),
		Long: `Change a webhook config's target. Its secret stays; its state goes back to new,
and ricloud tests it again.`,
		Example: "keywright ricloud webhook-config update 3 --target https://hooks.example.com/ricloud",
	}
	param(newParams(c), &p.URL, "target", "url", "send events to `URL`, which is https and can be reached from ricloud", false, parseText)
	c.RunE = func(c *cobra.Command, args []string) error {
		id, err := argID[keywright.WebhookConfigID](args[0])
		if err != nil {
			return err
		}
		if err := required(c, "target"); err != nil {
			return err
		}
		rc, err := a.ricloud()
		if err != nil {
			return err
		}
		config, err := change(a, fmt.Sprintf("keywright ricloud webhook-config get %d", id), func(ctx context.Context) (*keywright.WebhookConfig, error) {
			return rc.WebhookConfig.UpdateWithID(ctx, id, p)
		})
		return a.print(config, asFlag(err, webhookFlag))
	}
	return c
}

func (a *app) webhookConfigTest() *cobra.Command {
	var t testFlags
	c := &cobra.Command{
		Use: "test ID", Short: "Test a webhook config", Args: arguments("ID"),
		Long: `Start a task that delivers a test event to a webhook config's target, and print
the task. The call is sent once. A test that is known to have failed is a
failure of the command.`,
		Example: "keywright ricloud webhook-config test 3 --wait",
	}
	t.define(c)
	c.RunE = ricloudWithID(a, func(_ *cobra.Command, rc *keywright.Ricloud, id keywright.WebhookConfigID) error {
		return runTest(a, &t, rc, func(ctx context.Context, opts ...keywright.CallOption) (*keywright.Task, error) {
			return rc.WebhookConfig.TestWithID(ctx, id, opts...)
		})
	})
	return c
}

func (a *app) webhookConfigDelete() *cobra.Command {
	c := &cobra.Command{
		Use: "delete ID", Short: "Delete a webhook config", Args: arguments("ID"),
		Long: `Delete a webhook config. It asks first; away from a terminal it needs --yes. If
the answer is lost, it is looked up, and the call repeated if it did nothing.`,
		Example: "keywright ricloud webhook-config delete 3 --yes",
	}
	a.confirmFlag(c)
	c.RunE = ricloudWithID(a, func(c *cobra.Command, rc *keywright.Ricloud, id keywright.WebhookConfigID) error {
		return runDelete(a, c, fmt.Sprintf("webhook config %d", id), "Its secret is gone for good.",
			fmt.Sprintf("keywright ricloud webhook-config get %d", id),
			func(ctx context.Context) error { return rc.WebhookConfig.DeleteWithID(ctx, id) })
	})
	return c
}
