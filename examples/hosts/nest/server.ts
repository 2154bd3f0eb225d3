/** NestJS 11: the worker lives as long as its module, and drains in the shutdown hook. */
import "reflect-metadata";
import { Body, Controller, Get, HttpCode, Inject, Injectable, Module, Param, Post } from "@nestjs/common";
import type { OnApplicationBootstrap, OnApplicationShutdown } from "@nestjs/common";
import { NestFactory } from "@nestjs/core";
import { approve, begin, look, orchestrator } from "./order.ts";

@Injectable()
class Orders implements OnApplicationBootstrap, OnApplicationShutdown {
  readonly begin = begin;
  readonly look = look;
  readonly approve = approve;

  async onApplicationBootstrap() {
    await orchestrator.migrate();
    await orchestrator.startWorker();
  }

  onApplicationShutdown() {
    return orchestrator.close();
  }
}

@Controller("orders")
class OrdersController {
  constructor(@Inject(Orders) private readonly orders: Orders) {}

  @Post()
  begin(@Body() input: { amount: number }) {
    return this.orders.begin(input);
  }

  @Get(":id")
  look(@Param("id") id: string) {
    return this.orders.look(id);
  }

  @Post(":id/approval")
  @HttpCode(200)
  approve(@Param("id") id: string, @Body() answer: { approved: boolean }) {
    return this.orders.approve(id, answer);
  }
}

@Module({ controllers: [OrdersController], providers: [Orders] })
class AppModule {}

const app = await NestFactory.create(AppModule, { logger: ["error", "warn"] });
app.enableShutdownHooks();
await app.listen(Number(process.env["PORT"] ?? 3000));
