//! The providers of models: configured, and where it is asked for, called once each.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use dialects::{Conversation, Decoder, End, FaultClass, Reply, RequestOptions};
use domain::Amount;
use gateway::{Bounds, Call, Funds, FundsError, Gateway, GrantSpec, Provider, Route, Settlement};
use tokio_util::sync::CancellationToken;

use super::{Finding, Health};
use crate::Options;

/// How long a provider may take for one word.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is said to a provider.
const HELLO: &str = "Say hello.";

/// One finding for each provider, or one that there is none.
pub(super) async fn models(options: &Options, online: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for provider in options.providers.iter() {
        findings.push(if online {
            tried(options, provider).await
        } else {
            let detail = format!("{}; configured, not tried", place(provider));
            Finding::good("models", provider.name(), detail)
        });
    }
    if findings.is_empty() {
        return vec![Finding::bad(
            "models",
            "provider",
            Health::Broken,
            "no model is configured",
            "set ANTHROPIC_API_KEY or OPENAI_API_KEY, or add a provider to the configuration",
        )];
    }
    // One that answers is enough for `run`.
    if findings.iter().all(|it| it.health != Health::Good) {
        for finding in &mut findings {
            finding.health = Health::Broken;
        }
    }
    findings
}

fn place(provider: &Provider) -> String {
    let dialects: Vec<&str> = provider.dialects().iter().map(|one| one.name()).collect();
    format!("{} ({})", provider.base_url(), dialects.join(", "))
}

/// Calls a provider once, for one token.
async fn tried(options: &Options, provider: &Provider) -> Finding {
    let name = provider.name();
    let bad = |detail: String, remedy: &str| {
        let detail = format!("{}; {detail}", place(provider));
        Finding::bad("models", name, Health::Lacking, detail, remedy)
    };
    let Some(model) = provider.some_model() else {
        return bad(
            "it was not tried, because no model of it is named".into(),
            "name one as `default_model` of the provider in the configuration",
        );
    };
    let full = format!("{name}/{model}");
    let route = match options.providers.route(Some(&full), provider.dialects()) {
        Ok(route) => route,
        Err(error) => return bad(error.to_string(), "mend the provider in the configuration"),
    };
    match call(options, route).await {
        Ok(answer) => Finding::good("models", name, format!("{}; {answer}", place(provider))),
        Err(error) => {
            let remedy = match &error {
                gateway::Error::Provider { fault, .. } => fault.class.remedy(),
                gateway::Error::BadAnswer { .. } => "check the base URL of the provider",
                gateway::Error::Unreachable { .. } => {
                    "check the network, and the base URL of the provider"
                }
                gateway::Error::TimedOut { .. } | gateway::Error::Cut { .. } => {
                    "try again; if it stays so, look at the provider's page of incidents"
                }
                _ => "check the provider in the configuration",
            };
            bad(format!("{model}: {}", error.chain()), remedy)
        }
    }
}

/// What came back, in words.
async fn call(options: &Options, route: Route) -> Result<String, gateway::Error> {
    let (dialect, model) = (route.dialect, route.name());
    let mut conversation = Conversation::new("", Vec::new());
    conversation.push_user(HELLO);
    let request = conversation.request(
        dialect,
        &RequestOptions {
            model: route.model.clone(),
            max_output: 1,
        },
    );
    let gateway = Gateway::new(gateway::Options {
        providers: options.providers.clone(),
        bounds: Bounds {
            connect: PATIENCE,
            idle: PATIENCE,
            total: PATIENCE,
            ..Bounds::default()
        },
    })?;
    let started = Instant::now();
    let grant = gateway.grant(GrantSpec::new(
        Arc::new(OneToken),
        route,
        CancellationToken::new(),
    ));
    let answer = async {
        let mut response = grant.call(Call::new(dialect, request)).await?;
        let mut decoder = Decoder::new(dialect, response.status);
        while let Some(chunk) = response.body.chunk().await? {
            decoder.feed(&chunk);
        }
        Ok(decoder.finish().0)
    }
    .await;
    grant.close().await;
    match answer {
        Ok(reply) => said(reply, model, started.elapsed()),
        // A model that reasons first has no word left of one token, and OpenAI calls that an
        // error. It took the key and knows the model.
        Err(gateway::Error::Provider { fault, .. })
            if fault.class == FaultClass::BadRequest && fault.message.contains("output limit") =>
        {
            Ok(answered(&model, started.elapsed()))
        }
        Err(error) => Err(error),
    }
}

fn said(reply: Reply, model: String, took: Duration) -> Result<String, gateway::Error> {
    if let Some(fault) = reply.fault {
        return Err(gateway::Error::Provider {
            model,
            status: 200,
            fault,
            retry_after: None,
        });
    }
    if !matches!(reply.end, End::Complete | End::Unterminated) {
        let what = "what is no answer of this protocol".into();
        return Err(gateway::Error::BadAnswer { model, what });
    }
    let mut text = answered(&model, took);
    if let Some(tokens) = reply.usage.total() {
        text.push_str(&format!(", {tokens} tokens"));
    }
    Ok(text)
}

fn answered(model: &str, took: Duration) -> String {
    format!("{model} answered in {:.1} s", took.as_secs_f32())
}

/// The account of a call that no request pays: its bound is the one token that it asks for.
struct OneToken;

#[async_trait]
impl Funds for OneToken {
    async fn reserve(&self, _: u64, _: Amount) -> Result<(), FundsError> {
        Ok(())
    }

    async fn settle(&self, _: Settlement) -> Result<(), FundsError> {
        Ok(())
    }
}
