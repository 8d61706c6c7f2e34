//! TopicService.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use varve_broker_api::{Broker, Error};
use varve_proto::v1;
use varve_proto::v1::topic_service_server::TopicService;
use varve_types::ErrorKind;

use crate::context::CallContext;
use crate::shared::Shared;
use crate::translate::topic::{self, to_config, to_partition, to_topic};
use crate::translate::{
    at_most, page, page_size, pattern, to_topic_partition, topic_name, writable_topic,
};

/// The service.
#[derive(Debug)]
pub struct Topics<B>(pub Arc<Shared<B>>);

impl<B: Broker> Topics<B> {
    async fn create(
        &self,
        ctx: &CallContext,
        request: &v1::CreateTopicRequest,
    ) -> Result<v1::CreateTopicResponse, Error> {
        let created = self
            .0
            .broker
            .create_topic(&ctx.broker, topic::create(request)?)
            .await?;
        Ok(v1::CreateTopicResponse {
            topic: Some(to_topic(&created)),
        })
    }

    fn list(
        &self,
        ctx: &CallContext,
        request: &v1::ListTopicsRequest,
    ) -> Result<v1::ListTopicsResponse, Error> {
        let size = page_size(request.page_size, 100, 1000)?;
        let pattern = match request.name_pattern.as_str() {
            "" => None,
            text => Some(pattern("name_pattern", text)?),
        };
        let all = self.0.broker.topics(&ctx.broker)?;
        let kept = all.iter().filter(|t| {
            let name = t.name.as_str();
            name.starts_with(&request.name_prefix)
                && (request.include_internal || !t.name.is_internal())
                && pattern.as_ref().is_none_or(|p| p.is_match(name))
        });
        let (topics, next_page_token) =
            page(kept, |t| t.name.to_string(), &request.page_token, size)?;
        let topics = topics.into_iter().map(to_topic).collect();
        Ok(v1::ListTopicsResponse {
            topics,
            next_page_token,
        })
    }

    fn list_partitions(
        &self,
        ctx: &CallContext,
        request: &v1::ListPartitionsRequest,
    ) -> Result<v1::ListPartitionsResponse, Error> {
        let topic = topic_name("topic", &request.topic)?;
        let size = page_size(request.page_size, 1000, 10_000)?;
        let all = self.0.broker.partitions(&ctx.broker, &topic)?;
        // Padded, so that the order of the tokens is that of the numbers.
        let key = |p: &&varve_broker_api::PartitionInfo| format!("{:010}", p.partition.0);
        let (partitions, next_page_token) = page(all.iter(), key, &request.page_token, size)?;
        let partitions = partitions
            .into_iter()
            .map(|p| {
                let error = p.error.as_ref().map(|e| match e.kind {
                    // Where to ask, and no failure of this call.
                    ErrorKind::NotLeader => crate::status::to_partition_error(e),
                    _ => self.0.partition_error(e),
                });
                to_partition(p, error)
            })
            .collect();
        Ok(v1::ListPartitionsResponse {
            partitions,
            next_page_token,
        })
    }

    fn configs(
        &self,
        ctx: &CallContext,
        request: &v1::GetTopicConfigsRequest,
    ) -> Result<v1::GetTopicConfigsResponse, Error> {
        let topic = topic_name("topic", &request.topic)?;
        at_most("names", request.names.len(), 256)?;
        let all = self.0.broker.topic_configs(&ctx.broker, &topic)?;
        if let Some(name) = request
            .names
            .iter()
            .find(|n| !all.iter().any(|c| c.name == n.as_str()))
        {
            let name = crate::status::truncate(name, 128);
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("topic config {name:?} does not exist; leave names empty to list all"),
            )
            .with("config", name));
        }
        let wanted =
            |name: &str| request.names.is_empty() || request.names.iter().any(|n| n == name);
        let configs = all
            .iter()
            .filter(|c| wanted(c.name))
            .map(to_config)
            .collect();
        Ok(v1::GetTopicConfigsResponse { configs })
    }

    async fn update(
        &self,
        ctx: &CallContext,
        request: &v1::UpdateTopicConfigsRequest,
    ) -> Result<v1::UpdateTopicConfigsResponse, Error> {
        let changed = self
            .0
            .broker
            .update_topic_configs(&ctx.broker, topic::update(request)?)
            .await?;
        Ok(v1::UpdateTopicConfigsResponse {
            topic: Some(to_topic(&changed)),
        })
    }

    async fn add(
        &self,
        ctx: &CallContext,
        request: &v1::AddPartitionsRequest,
    ) -> Result<v1::AddPartitionsResponse, Error> {
        let changed = self
            .0
            .broker
            .add_partitions(&ctx.broker, topic::add_partitions(request)?)
            .await?;
        Ok(v1::AddPartitionsResponse {
            topic: Some(to_topic(&changed)),
        })
    }

    async fn delete(
        &self,
        ctx: &CallContext,
        request: &v1::DeleteTopicRequest,
    ) -> Result<v1::DeleteTopicResponse, Error> {
        let name = writable_topic("topic", &request.topic)?;
        let id = topic::topic_id(&request.topic_id)?;
        self.0.broker.delete_topic(&ctx.broker, &name, id).await?;
        Ok(v1::DeleteTopicResponse {})
    }

    async fn delete_before(
        &self,
        ctx: &CallContext,
        request: &v1::DeleteRecordsRequest,
    ) -> Result<v1::DeleteRecordsResponse, Error> {
        use v1::delete_records_result::Outcome as O;
        let items = topic::delete_records(request)?;
        let partitions: Vec<_> = items
            .iter()
            .map(|i| to_topic_partition(&i.partition))
            .collect();
        let moved = self.0.broker.delete_records(&ctx.broker, items).await;
        let results = partitions
            .into_iter()
            .zip(moved)
            .map(|(tp, moved)| v1::DeleteRecordsResult {
                topic_partition: Some(tp),
                outcome: Some(match moved {
                    Ok(start) => O::LogStartOffset(start.get()),
                    Err(error) => O::Error(self.0.partition_error(&error)),
                }),
            })
            .collect();
        Ok(v1::DeleteRecordsResponse { results })
    }
}

#[tonic::async_trait]
impl<B: Broker> TopicService for Topics<B> {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self
            .0
            .within(&ctx, self.create(&ctx, request.get_ref()))
            .await;
        answer.map(Response::new).map_err(|e| self.0.fail(&e))
    }

    async fn get_topic(
        &self,
        request: Request<v1::GetTopicRequest>,
    ) -> Result<Response<v1::GetTopicResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let found = topic_name("topic", &request.get_ref().topic)
            .and_then(|name| self.0.broker.topic(&ctx.broker, &name))
            .map_err(|e| self.0.fail(&e))?;
        Ok(Response::new(v1::GetTopicResponse {
            topic: Some(to_topic(&found)),
        }))
    }

    async fn list_topics(
        &self,
        request: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self.list(&ctx, request.get_ref());
        answer.map(Response::new).map_err(|e| self.0.fail(&e))
    }

    async fn list_partitions(
        &self,
        request: Request<v1::ListPartitionsRequest>,
    ) -> Result<Response<v1::ListPartitionsResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self.list_partitions(&ctx, request.get_ref());
        answer.map(Response::new).map_err(|e| self.0.fail(&e))
    }

    async fn get_topic_configs(
        &self,
        request: Request<v1::GetTopicConfigsRequest>,
    ) -> Result<Response<v1::GetTopicConfigsResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self.configs(&ctx, request.get_ref());
        answer.map(Response::new).map_err(|e| self.0.fail(&e))
    }

    async fn update_topic_configs(
        &self,
        request: Request<v1::UpdateTopicConfigsRequest>,
    ) -> Result<Response<v1::UpdateTopicConfigsResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self
            .0
            .within(&ctx, self.update(&ctx, request.get_ref()))
            .await;
        answer.map(Response::new).map_err(|e| self.0.fail(&e))
    }

    async fn add_partitions(
        &self,
        request: Request<v1::AddPartitionsRequest>,
    ) -> Result<Response<v1::AddPartitionsResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self.0.within(&ctx, self.add(&ctx, request.get_ref())).await;
        answer.map(Response::new).map_err(|e| self.0.fail(&e))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self
            .0
            .within(&ctx, self.delete(&ctx, request.get_ref()))
            .await;
        answer.map(Response::new).map_err(|e| self.0.fail(&e))
    }

    async fn delete_records(
        &self,
        request: Request<v1::DeleteRecordsRequest>,
    ) -> Result<Response<v1::DeleteRecordsResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self
            .0
            .within(&ctx, self.delete_before(&ctx, request.get_ref()))
            .await;
        answer.map(|a| ctx.respond(a)).map_err(|e| self.0.fail(&e))
    }
}
